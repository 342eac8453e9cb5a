# The fallback where CMake is missing: the CPU addon alone, from the sources that CMakeLists.txt
# globs. It is not in the root, where npm would run node-gyp by itself, and not deeper, where the
# objects of sources in '..' would collide between the levels.
{
  'variables': {
    'base': [
      '<!@(node -p "[\'cpu\',\'shared\',\'addon\',\'addon/families\'].flatMap(d => fs.readdirSync(d).filter(f => f.endsWith(\'.cpp\')).map(f => d+\'/\'+f)).join(\' \')")'
    ],
    'kernels': [
      '<!@(node -p "fs.readdirSync(\'cpu/kernels\').filter(f => f.endsWith(\'.cpp\')).map(f => \'cpu/kernels/\'+f).join(\' \')")'
    ],
    'x64': '<!(node -p "process.arch === \'x64\' ? 1 : 0")',
    'arm64': '<!(node -p "process.arch === \'arm64\' ? 1 : 0")',
  },
  'target_defaults': {
    'include_dirs': ['.'],
    'cflags!': ['-O2', '-fno-exceptions'],
    'cflags_cc!': ['-fno-exceptions', '-std=gnu++17', '-std=gnu++20', '-fno-rtti'],
    'cflags_cc': ['-std=c++17', '-O3', '-fno-strict-aliasing', '-fvisibility=hidden',
                  '-fvisibility-inlines-hidden'],
    'xcode_settings': {
      'GCC_ENABLE_CPP_EXCEPTIONS': 'YES', 'CLANG_CXX_LANGUAGE_STANDARD': 'c++17',
      'OTHER_CPLUSPLUSFLAGS': ['-O3', '-fno-strict-aliasing', '-fvisibility=hidden'],
    },
  },
  'targets': [
    {
      'target_name': 'adjoint_kernels_scalar', 'type': 'static_library', 'sources': ['<@(kernels)'],
      'defines': ['ADJOINT_LEVEL=scalar', 'ADJOINT_LEVEL_SCALAR=1'],
      'cflags_cc': ['-ffp-contract=fast', '-fno-math-errno', '-fno-trapping-math', '-fPIC'],
      'conditions': [['x64==1', {'cflags_cc': ['-mno-mmx']}]],
    },
    {
      'target_name': 'adjoint_cpu',
      'sources': ['<@(base)'],
      'defines': ['NAPI_VERSION=9', 'NAPI_CPP_EXCEPTIONS', 'ADJOINT_HAS_SCALAR=1'],
      'include_dirs': [
        '<!(node -p "require(\'node-addon-api\').include_dir")',
        '<!(node -p "require(\'node-api-headers\').include_dir")',
      ],
      'dependencies': ['adjoint_kernels_scalar'],
      'conditions': [
        ['x64==1', {
          'defines': ['ADJOINT_HAS_AVX2=1', 'ADJOINT_HAS_AVX512=1'],
          'dependencies': ['adjoint_kernels_avx2', 'adjoint_kernels_avx512',
                           'adjoint_kernels_avx512bf16', 'adjoint_kernels_amx'],
        }],
        ['arm64==1', {
          'defines': ['ADJOINT_HAS_NEON=1'], 'dependencies': ['adjoint_kernels_neon'],
        }],
        ['OS=="linux"', {'ldflags': ['-Wl,-z,nodelete', '-s'], 'libraries': ['-lpthread']}],
      ],
    },
  ],
  'conditions': [
    ['x64==1', {
      'targets': [
        {
          'target_name': 'adjoint_kernels_avx2', 'type': 'static_library',
          'sources': ['<@(kernels)'],
          'defines': ['ADJOINT_LEVEL=avx2', 'ADJOINT_LEVEL_AVX2=1'],
          'cflags_cc': ['-mavx2', '-mfma', '-mf16c', '-ffp-contract=fast', '-fno-math-errno',
                        '-fno-trapping-math', '-fPIC'],
        },
        {
          'target_name': 'adjoint_kernels_avx512', 'type': 'static_library',
          'sources': ['<@(kernels)'],
          'defines': ['ADJOINT_LEVEL=avx512', 'ADJOINT_LEVEL_AVX512=1'],
          'cflags_cc': ['-mavx512f', '-mavx512bw', '-mavx512dq', '-mavx512vl', '-mavx2', '-mfma',
                        '-mf16c', '-mprefer-vector-width=512', '-ffp-contract=fast',
                        '-fno-math-errno', '-fno-trapping-math', '-fPIC'],
        },
        {
          'target_name': 'adjoint_kernels_avx512bf16', 'type': 'static_library',
          'sources': ['cpu/features/gemm_bf16_avx512.cpp', 'cpu/features/attention_pairs_avx512.cpp',
                      'cpu/features/conv2d_pairs_avx512.cpp', 'cpu/features/probe_avx512.cpp'],
          'defines': ['ADJOINT_LEVEL=avx512bf16'],
          'cflags_cc': ['-mavx512f', '-mavx512bw', '-mavx512dq', '-mavx512vl', '-mavx2', '-mfma',
                        '-mf16c', '-mprefer-vector-width=512', '-mavx512bf16', '-fPIC'],
        },
        {
          'target_name': 'adjoint_kernels_amx', 'type': 'static_library',
          'sources': ['cpu/features/gemm_bf16_amx.cpp', 'cpu/features/probe_amx.cpp'],
          'defines': ['ADJOINT_LEVEL=amx'],
          'cflags_cc': ['-mavx512f', '-mavx512bw', '-mavx512dq', '-mavx512vl', '-mavx2', '-mfma',
                        '-mf16c', '-mprefer-vector-width=512', '-mavx512bf16', '-mamx-tile',
                        '-mamx-bf16', '-fPIC'],
        },
      ],
    }],
    ['arm64==1', {
      'targets': [
        {
          'target_name': 'adjoint_kernels_neon', 'type': 'static_library',
          'sources': ['<@(kernels)'],
          'defines': ['ADJOINT_LEVEL=neon', 'ADJOINT_LEVEL_NEON=1'],
          'cflags_cc': ['-ffp-contract=fast', '-fno-math-errno', '-fno-trapping-math', '-fPIC'],
        },
      ],
    }],
  ],
}
