// npm's install step. Never fatal: a machine without a compiler can still install the package, and
// the first use then says what is missing and how to build it.
import { addonPath, buildCuda, buildNative, cudaAddonPath, hasCard } from './build-native.mjs'

if (process.env.ADJOINT_SKIP_BUILD === '1') {
  console.log('adjoint: ADJOINT_SKIP_BUILD=1, the native addon is not built')
} else {
  try {
    buildNative()
    console.log(`adjoint: built ${addonPath}`)
  } catch (error) {
    console.warn(`adjoint: the native addon was not built: ${error.message}`)
    console.warn('adjoint: once CMake and a C++17 compiler are there, run: npx adjoint build')
  }
}

// Where there is a card, its addon too, for this card alone.
if (process.env.ADJOINT_SKIP_BUILD !== '1' && hasCard()) {
  try {
    buildCuda()
    console.log(`adjoint: built ${cudaAddonPath}`)
  } catch (error) {
    console.warn(`adjoint: the CUDA addon was not built: ${error.message}`)
    console.warn('adjoint: without a CUDA toolkit, run: npx adjoint build --cuda --toolkit DIR')
  }
}
