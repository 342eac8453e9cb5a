// Where NVIDIA's libraries are looked for, tried with the mathematical library under another name.
#include "cuda/library.h"

#include <dlfcn.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <optional>

#include "shared/error.h"

namespace adjoint::cuda {
namespace {

namespace fs = std::filesystem;

// An environment variable with another value for a while.
class Variable {
 public:
  Variable(const char* name, const std::string& value) : name_(name) {
    if (const char* old = getenv(name)) old_ = old;
    if (value.empty()) {
      unsetenv(name);
    } else {
      setenv(name, value.c_str(), 1);
    }
  }
  ~Variable() {
    if (old_) {
      setenv(name_, old_->c_str(), 1);
    } else {
      unsetenv(name_);
    }
  }

 private:
  const char* name_;
  std::optional<std::string> old_;
};

class Libraries : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "adjointXXXXXX").string();
    root_ = mkdtemp(pattern.data());
    Dl_info info;
    ASSERT_TRUE(dladdr(reinterpret_cast<void*>(static_cast<double (*)(double)>(&std::cos)), &info));
    mathematics_ = "libm.so.6";
    if (void* handle = dlopen(mathematics_.c_str(), RTLD_NOW)) {
      void* cosine = dlsym(handle, "cos");
      if (cosine && dladdr(cosine, &info)) mathematics_ = info.dli_fname;
    } else {
      GTEST_SKIP() << "no libm.so.6 here";
    }
  }
  void TearDown() override { fs::remove_all(root_); }

  // A link to the mathematical library, under the name that the tests ask for.
  std::string put(const std::string& folder) {
    const fs::path file = root_ / folder / kName;
    fs::create_directories(file.parent_path());
    fs::create_symlink(mathematics_, file);
    return file.string();
  }
  std::string putGarbage(const std::string& folder) {
    const fs::path file = root_ / folder / kName;
    fs::create_directories(file.parent_path());
    std::ofstream(file) << "This is no library, although it is as long as a header would be.\n";
    return file.string();
  }
  std::string in(const std::string& folder) const { return (root_ / folder).string(); }

  static constexpr const char* kName = "libadjointtest.so.9";
  fs::path root_;
  std::string mathematics_;
  Variable own_{"ADJOINT_CUDA_PATH", ""}, home_{"CUDA_HOME", ""}, path_{"CUDA_PATH", ""};
  Variable python_{"ADJOINT_PYTHON", ""}, virtual_{"VIRTUAL_ENV", ""}, conda_{"CONDA_PREFIX", ""};
};

TEST_F(Libraries, AreFoundInToolkitsAndEnvironments) {
  const struct {
    const char *variable, *value, *folder;
  } places[] = {
      {"ADJOINT_CUDA_PATH", "own", "own"},
      {"ADJOINT_CUDA_PATH", "toolkit", "toolkit/lib64"},
      {"ADJOINT_CUDA_PATH", "environment", "environment/lib/python3.11/site-packages/nvidia/x/lib"},
      {"ADJOINT_CUDA_PATH", "packages", "packages/nvidia/cudnn/lib"},
      {"CUDA_HOME", "home", "home/lib64"},
      {"VIRTUAL_ENV", "venv", "venv/lib/python3.9/site-packages/nvidia/cudnn/lib"},
      {"ADJOINT_PYTHON", "system/bin/python3",
       "system/local/lib/python3.12/dist-packages/nvidia/y/lib"},
  };
  for (const auto& place : places) {
    SCOPED_TRACE(place.folder);
    const std::string file = put(place.folder);
    const Variable variable(place.variable, in(place.value));
    const Library library({"libadjointabsent.so.1", kName});
    ASSERT_TRUE(library.isLoaded()) << library.reason();
    EXPECT_EQ(library.path(), file);
    EXPECT_DOUBLE_EQ(library.function<double(double)>("cos")(1.0), std::cos(1.0));
  }
}

TEST_F(Libraries, TheUsersFolderComesFirstAndTheLoadersPathNext) {
  const std::string own = put("own"), home = put("home/lib64");
  const Variable homeVariable("CUDA_HOME", in("home"));
  EXPECT_EQ(Library({kName}).path(), home);
  EXPECT_EQ(Library({"libm.so.6", kName}).path(), "libm.so.6");
  const Variable ownVariable("ADJOINT_CUDA_PATH", in("own"));
  EXPECT_EQ(Library({"libm.so.6", kName}).path(), own);
}

TEST_F(Libraries, EveryReasonIsKept) {
  const std::string garbage = putGarbage("own");
  fs::create_directories(in("home/lib64"));
  const Variable own("ADJOINT_CUDA_PATH", in("own")), home("CUDA_HOME", in("home"));
  {
    const Library library({kName});
    EXPECT_FALSE(library.isLoaded());
    EXPECT_NE(library.reason().find(garbage + ": "), std::string::npos) << library.reason();
    EXPECT_NE(library.reason().find(std::string(kName) + ": cannot open"), std::string::npos);
    EXPECT_NE(library.reason().find("not in " + in("home/lib64")), std::string::npos);
    try {
      library.symbol("cos");
      FAIL() << "expected an error";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind, ErrorKind::device);
      EXPECT_NE(std::string(error.what()).find(kName), std::string::npos);
    }
  }
  // What is unfit does not end the search.
  const std::string file = put("home/lib64");
  const Library library({kName});
  EXPECT_EQ(library.path(), file);
  EXPECT_THROW(library.symbol("adjointHasNoSuchFunction"), Error);
}

}  // namespace
}  // namespace adjoint::cuda
