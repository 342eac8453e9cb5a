#include "cuda/library.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "shared/error.h"

namespace adjoint::cuda {
namespace {

namespace fs = std::filesystem;

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

// Folders in a folder, by name, so that the order of the search is always the same.
std::vector<fs::path> foldersIn(const fs::path& folder) {
  std::vector<fs::path> found;
  std::error_code ignored;
  for (fs::directory_iterator it(folder, ignored), end; it != end; it.increment(ignored)) {
    if (it->is_directory(ignored)) found.push_back(it->path());
  }
  std::sort(found.begin(), found.end());
  return found;
}

void addFolder(std::vector<std::string>& out, const fs::path& folder) {
  std::error_code ignored;
  const std::string name = folder.string();
  const bool known = std::find(out.begin(), out.end(), name) != out.end();
  if (!known && fs::is_directory(folder, ignored)) out.push_back(name);
}

void addToolkit(std::vector<std::string>& out, const std::string& root) {
  if (root.empty()) return;
  addFolder(out, fs::path(root) / "lib64");
  addFolder(out, fs::path(root) / "lib");
}

void addPackages(std::vector<std::string>& out, const fs::path& packages) {
  for (const fs::path& package : foldersIn(packages / "nvidia")) addFolder(out, package / "lib");
}

void addPython(std::vector<std::string>& out, const std::string& root) {
  if (root.empty()) return;
  for (const char* library : {"lib", "local/lib"}) {
    for (const fs::path& python : foldersIn(fs::path(root) / library)) {
      if (python.filename().string().rfind("python", 0) != 0) continue;
      addPackages(out, python / "site-packages");
      addPackages(out, python / "dist-packages");
    }
  }
}

// …/bin/python3 belongs to the environment in whose bin it lies, whatever it links to.
std::string environmentOf(const std::string& interpreter) {
  return interpreter.empty() ? "" : fs::path(interpreter).parent_path().parent_path().string();
}

}  // namespace

LibraryFolders libraryFolders() {
  LibraryFolders folders;
  if (const std::string root = variable("ADJOINT_CUDA_PATH"); !root.empty()) {
    addToolkit(folders.before, root);
    addPython(folders.before, root);
    addPackages(folders.before, root);
    addFolder(folders.before, root);
  }
  addToolkit(folders.after, variable("CUDA_HOME"));
  addToolkit(folders.after, variable("CUDA_PATH"));
  addToolkit(folders.after, "/usr/local/cuda");
  addPython(folders.after, environmentOf(variable("ADJOINT_PYTHON")));
  addPython(folders.after, variable("VIRTUAL_ENV"));
  addPython(folders.after, variable("CONDA_PREFIX"));
  return folders;
}

Library::Library(const std::vector<std::string>& names) : names_(names) {
  const LibraryFolders folders = libraryFolders();
  openIn(folders.before);
  for (const std::string& name : names_) {
    if (!isLoaded()) open(name);
  }
  openIn(folders.after);
  if (!isLoaded() && !without_.empty()) reason_ += "; not in " + without_;
}

bool Library::open(const std::string& file) {
  // Local, so that a second version in the process (PyTorch's, say) keeps its own symbols.
  handle_ = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle_) {
    path_ = file;
    return true;
  }
  const char* error = dlerror();
  if (!reason_.empty()) reason_ += "; ";
  reason_ += error ? error : file + ": unknown error";
  return false;
}

void Library::openIn(const std::vector<std::string>& folders) {
  for (const std::string& folder : folders) {
    bool found = false;
    for (const std::string& name : names_) {
      const fs::path file = fs::path(folder) / name;
      std::error_code ignored;
      if (isLoaded() || !fs::exists(file, ignored)) continue;
      found = true;
      open(file.string());
    }
    if (!found) without_ += (without_.empty() ? "" : ", ") + folder;
  }
}

void* Library::symbol(const char* name) const {
  if (!isLoaded()) {
    fail(ErrorKind::device, "cuda: expected %s, which could not be loaded: %s",
         names_.empty() ? "a library" : names_[0].c_str(), reason_.c_str());
  }
  void* address = dlsym(handle_, name);
  if (!address) {
    fail(ErrorKind::device, "cuda: expected %s in %s, got a version without it", name,
         path_.c_str());
  }
  return address;
}

}  // namespace adjoint::cuda
