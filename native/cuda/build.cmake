# The CUDA backend: finds a compiler and makes
#   adjoint_cuda_backend   the objects of native/cuda, for the addon and the self-test
#   adjoint_cuda_runtime   what they link with: the CUDA runtime, static, and nothing of NVIDIA's else
# cuBLAS, cuDNN, NVRTC and the driver are loaded when the addon runs (library.h); here only their
# headers are needed.
#   -DADJOINT_CUDA_TOOLKIT=DIR          a CUDA toolkit, or a virtual environment with NVIDIA's packages
#   -DADJOINT_CUDA_ARCHITECTURES=75;90  the compute capabilities: machine code for each, and PTX of
#                                       the last for cards that come later. Default: those of this
#                                       machine's cards, or all from 7.5 to 12.0 where it has none
set(ADJOINT_CUDA_TOOLKIT "" CACHE PATH "A CUDA toolkit, or a virtual environment that holds one")
set(ADJOINT_CUDA_ARCHITECTURES "" CACHE STRING "Compute capabilities to build for, without the dot")
set(ADJOINT_ALL_CUDA_ARCHITECTURES 75 80 86 89 90 100 120)

if(NOT ADJOINT_CUDA)
  return()
endif()
if(ADJOINT_EMULATION)
  message(FATAL_ERROR "adjoint: native/cuda is built by nvcc or emulated, not both in one folder")
endif()

# ---- the compiler
# NVIDIA's Python packages keep everything below nvidia/cu13 (or nvidia/cu12) of an environment.
file(GLOB python_toolkits "${ADJOINT_CUDA_TOOLKIT}/lib/python3*/site-packages/nvidia/cu1*")
find_program(ADJOINT_NVCC nvcc HINTS ${python_toolkits} ${ADJOINT_CUDA_TOOLKIT} $ENV{CUDA_HOME}
             $ENV{CUDA_PATH} /usr/local/cuda PATH_SUFFIXES bin)
if(NOT ADJOINT_NVCC)
  message(FATAL_ERROR "adjoint: expected a CUDA compiler (nvcc) on the path, in CUDA_HOME or in "
          "ADJOINT_CUDA_TOOLKIT, found none. One can be had with: "
          "npx adjoint build --cuda --toolkit DIR")
endif()
get_filename_component(toolkit "${ADJOINT_NVCC}" REALPATH)
get_filename_component(toolkit "${toolkit}/../.." ABSOLUTE)

if(NOT ADJOINT_CUDA_ARCHITECTURES)
  execute_process(COMMAND nvidia-smi --query-gpu=compute_cap --format=csv,noheader
                  OUTPUT_VARIABLE cards ERROR_QUIET RESULT_VARIABLE no_cards)
  if(no_cards EQUAL 0 AND cards MATCHES "[0-9]")
    string(REGEX MATCHALL "[0-9]+\\.[0-9]+" cards "${cards}")
    list(REMOVE_DUPLICATES cards)
    string(REPLACE "." "" ADJOINT_CUDA_ARCHITECTURES "${cards}")
  else()
    set(ADJOINT_CUDA_ARCHITECTURES ${ADJOINT_ALL_CUDA_ARCHITECTURES})
  endif()
endif()
set(CMAKE_CUDA_ARCHITECTURES ${ADJOINT_CUDA_ARCHITECTURES})
list(POP_BACK CMAKE_CUDA_ARCHITECTURES newest)
list(TRANSFORM CMAKE_CUDA_ARCHITECTURES APPEND -real)
list(APPEND CMAKE_CUDA_ARCHITECTURES ${newest})
list(JOIN ADJOINT_CUDA_ARCHITECTURES " " listed)
message(STATUS "adjoint: the CUDA backend is built by ${ADJOINT_NVCC} for ${listed}")

set(CMAKE_CUDA_COMPILER ${ADJOINT_NVCC})
set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
# The layout of the Python packages has `lib`, which nvcc does not look into by itself.
if(EXISTS "${toolkit}/lib/libcudart_static.a")
  set(ENV{LIBRARY_PATH} "${toolkit}/lib:$ENV{LIBRARY_PATH}")
endif()
enable_language(CUDA)
set(CMAKE_CUDA_STANDARD 17)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)

# ---- the libraries' headers
find_path(ADJOINT_CUDNN_INCLUDE cudnn_graph.h HINTS ${toolkit}/include ${toolkit}/../cudnn/include
          PATH_SUFFIXES cudnn)
find_path(ADJOINT_CUDNN_FRONTEND_INCLUDE cudnn_frontend.h
          HINTS ${toolkit}/include ${toolkit}/../../include)

add_library(adjoint_cuda_runtime INTERFACE)
find_library(ADJOINT_CUDART_STATIC cudart_static HINTS ${toolkit}/lib64 ${toolkit}/lib
             ${toolkit}/targets/x86_64-linux/lib ${toolkit}/targets/sbsa-linux/lib NO_CACHE REQUIRED)
target_link_libraries(adjoint_cuda_runtime INTERFACE ${ADJOINT_CUDART_STATIC} Threads::Threads
                      ${CMAKE_DL_LIBS} rt)

# ---- the backend
file(GLOB ADJOINT_CUDA_SOURCES CONFIGURE_DEPENDS native/cuda/*.cu native/cuda/*.cpp)
if(NOT ADJOINT_CUDNN_INCLUDE OR NOT ADJOINT_CUDNN_FRONTEND_INCLUDE)
  message(FATAL_ERROR "adjoint: the CUDA backend needs the headers of cuDNN 9 and cudnn-frontend; "
          "NVIDIA's packages nvidia-cudnn-cu13 and nvidia-cudnn-frontend hold them "
          "(ADJOINT_CUDNN_INCLUDE, ADJOINT_CUDNN_FRONTEND_INCLUDE name their folders)")
endif()
add_library(adjoint_cuda_backend OBJECT ${ADJOINT_CUDA_SOURCES} ${ADJOINT_SHARED_SOURCES})
target_link_libraries(adjoint_cuda_backend PUBLIC adjoint_options)
target_include_directories(adjoint_cuda_backend SYSTEM PUBLIC ${toolkit}/include PRIVATE
                           ${ADJOINT_CUDNN_INCLUDE} ${ADJOINT_CUDNN_FRONTEND_INCLUDE})
list(JOIN ADJOINT_HOST_FLAGS "," host_flags)
set(ADJOINT_NVCC_FLAGS
    "$<$<COMPILE_LANGUAGE:CUDA>:-O3;--expt-relaxed-constexpr;-Xcompiler=${host_flags}>")
target_compile_options(adjoint_cuda_backend PRIVATE ${ADJOINT_NVCC_FLAGS}
                       $<$<COMPILE_LANGUAGE:CXX>:${ADJOINT_OPTIMIZE}>)
set_target_properties(adjoint_cuda_backend PROPERTIES CUDA_VISIBILITY_PRESET hidden)
