// NVIDIA's libraries, found where users have them and loaded when they are first needed: the addon
// itself links to none of them.
#pragma once
#include <string>
#include <vector>

namespace adjoint::cuda {

// The folders that are searched beside the loader's own path, those that the user names first:
//   $ADJOINT_CUDA_PATH    a folder of libraries, a CUDA toolkit or a Python environment
//   $CUDA_HOME, $CUDA_PATH, /usr/local/cuda    toolkits
//   $VIRTUAL_ENV, $CONDA_PREFIX, the environment of the interpreter $ADJOINT_PYTHON
// Of a Python environment these are the nvidia/*/lib folders of its packages. Folders that do not
// exist are left out.
struct LibraryFolders {
  std::vector<std::string> before, after;  // the loader's own path
};
LibraryFolders libraryFolders();

class Library {
 public:
  // Loads the first of `names` ("libcudnn.so.9") that is there and fit: all names are tried in one
  // place after another. Never throws; what was loaded stays so until the process ends.
  explicit Library(const std::vector<std::string>& names);

  bool isLoaded() const { return handle_ != nullptr; }
  void* handle() const { return handle_; }           // of dlopen
  const std::string& path() const { return path_; }  // a bare name came from the loader's path
  // Why each candidate was refused, in one line.
  const std::string& reason() const { return reason_; }
  // Throws Error (device) where there is no such function, or no library.
  void* symbol(const char* name) const;
  template <class Function>
  Function* function(const char* name) const {
    return reinterpret_cast<Function*>(symbol(name));
  }

 private:
  bool open(const std::string& file);
  void openIn(const std::vector<std::string>& folders);

  std::vector<std::string> names_;
  void* handle_ = nullptr;
  std::string path_, reason_, without_;
};

}  // namespace adjoint::cuda
