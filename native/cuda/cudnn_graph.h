// NVIDIA's cudnn-frontend, which makes cuDNN's graphs; its functions are those of cudnnLibrary().
// The header takes long to compile.
#pragma once
#define NV_CUDNN_FRONTEND_USE_DYNAMIC_LOADING
#define CUDNN_FRONTEND_SKIP_JSON_LIB
#include <cudnn_frontend.h>

#include <unordered_map>
