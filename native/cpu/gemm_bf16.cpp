#include "cpu/gemm_bf16.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "cpu/features.h"
#include "cpu/gemm.h"
#include "cpu/workspace.h"
#include "shared/convert.h"

#if defined(ADJOINT_HAS_AVX512)
namespace adjoint::cpu::amx {
extern const Bf16Multiply multiplyBf16;
}
namespace adjoint::cpu::avx512bf16 {
extern const Bf16Multiply multiplyBf16;
}
#endif

namespace adjoint::cpu {
namespace {

// Tasks are worth some microseconds of AMX. The tiles of b of a task stay in the second cache, from
// which they come as fast as they are multiplied; those of a are read from further away once a
// task.
constexpr double kTaskOperations = 8e6, kMostTasks = 64;
constexpr int64_t kTaskBlocks = 8, kTaskBytes = 1 << 20;
constexpr double kManyColumns = 4;        // blocks of them a task
constexpr int64_t kPackGrain = 1 << 14;   // elements packed in one chunk
constexpr int64_t kSlabBytes = 16 << 20;  // of packed tiles of each operand
// Beyond such a depth, in steps of 32, rows of a and columns of b no longer fit the second cache.
constexpr int64_t kDepthSteps = 64;

using Operand = Bf16Product::Operand;

Bf16Product transposed(const Bf16Product& p) {
  Bf16Product t = p;
  std::swap(t.m, t.n);
  std::swap(t.a, t.b);
  std::swap(t.cRow, t.cColumn);
  std::swap(t.biasRow, t.biasColumn);
  return t;
}

bool isReadInPlace(const Operand& a, int terms) {
  return terms == 1 && !a.isFloat && a.depth == 1;
}

// What moving the operands and c costs, per element: tiles that are packed in the order in which
// they lie, tiles that are turned, and none for rows of a read in place.
double movingCost(const Bf16Product& p, bool readsPairs) {
  const double turned = readsPairs ? 1 : 2;
  const double a = isReadInPlace(p.a, p.terms) ? 0
                   : p.a.depth == 1            ? 1
                   : p.a.outer == 1            ? turned
                                               : 8;
  const double b = p.b.depth == 1 ? 2 : p.b.outer == 1 ? 1 : 8;
  const double c = p.cColumn == 1 ? 0 : p.cRow == 1 ? 0.5 : 4;
  return a * p.m * p.k + b * p.k * p.n + c * p.m * p.n;
}

class TiledProduct {
 public:
  TiledProduct(const Bf16Product& p, Bf16Multiply multiply)
      : p_(p),
        multiply_(multiply),
        table_(gemmBf16Table()),
        steps_(ceilDivide(p.k, kTileDepth)),
        planes_(p.terms == 3 ? 2 : 1),
        readsA_(isReadInPlace(p.a, p.terms)),
        pairsA_(multiply.readsPairs && goesByDepth(p.a)) {
    const int64_t most = std::max<int64_t>(
        1, kSlabBytes / (2 * kBlockSide * kTileDepth * std::max<int64_t>(1, steps_ * planes_)));
    slabRows_ = slab(p.m, most);
    slabColumns_ = slab(p.n, most);
    chooseTasks();
  }

  bool run() {
    // Packed tiles of a slab of b, then of a: of all rows, or what cannot be read in place, which
    // is the last rows and the end of the depth.
    const int64_t bTiles = packsInTask_ ? 0 : slabColumns_ / kTileRows * steps_ * planes_;
    const int64_t aTiles =
        readsA_ ? slabRows_ / kTileRows + steps_ : slabRows_ / kTileRows * steps_ * planes_;
    Workspace packed((bTiles + aTiles) * kTileElements * sizeof(uint16_t));
    packedB_ = packed.as<uint16_t>();
    packedA_ = packedB_ + bTiles * kTileElements;
    Workspace bias(p_.bias ? biasLength() * sizeof(float) : 0);
    result_ = {p_.c, p_.cIsFloat, p_.cRow, p_.cColumn, nullptr, 0, 0, p_.rectify};
    if (p_.bias) readBias(bias.as<float>());
    Workspace rows(slabRows_ / kTileRows * sizeof(Bf16Rows));
    rows_ = rows.as<Bf16Rows>();
    for (int64_t j = 0; j < p_.n; j += slabColumns_) {
      for (int64_t i = 0; i < p_.m; i += slabRows_) {
        firstRow_ = i;
        firstColumn_ = j;
        m_ = std::min(slabRows_, p_.m - i);
        n_ = std::min(slabColumns_, p_.n - j);
        pack(i == 0);
        if (!isFinite_.load(std::memory_order_relaxed)) return false;
        multiplySlab();
      }
    }
    return true;
  }

 private:
  // Of blocks, evenly cut.
  static int64_t slab(int64_t n, int64_t most) {
    const int64_t blocks = ceilDivide(n, kBlockSide);
    return ceilDivide(blocks, ceilDivide(blocks, most)) * kBlockSide;
  }

  void chooseTasks() {
    const double operations = 2.0 * p_.terms * p_.m * p_.n * p_.k;
    const double wanted = std::min(kMostTasks, operations / kTaskOperations);
    const double columnBytes =
        2.0 * kBlockSide * kTileDepth * std::max<int64_t>(1, steps_ * planes_);
    taskRows_ = std::min(kTaskBlocks, slabRows_ / kBlockSide);
    taskColumns_ = slab(slabColumns_, std::max<int64_t>(1, kTaskBytes / columnBytes)) / kBlockSide;
    // Where one task takes all rows, no other wants its columns: it packs them itself, and they are
    // still in the cache when it multiplies. There must be columns for as many tasks as are wanted.
    const int64_t columnBlocks = slabColumns_ / kBlockSide;
    packsInTask_ = p_.terms == 1 && !p_.b.isFloat && p_.m <= taskRows_ * kBlockSide &&
                   static_cast<double>(columnBlocks) >= kManyColumns * std::max(1.0, wanted);
    if (packsInTask_) {
      const auto count = static_cast<int64_t>(std::max(1.0, wanted));
      taskColumns_ = std::min(taskColumns_, ceilDivide(columnBlocks, count)) * kBlockSide;
      taskRows_ *= kBlockSide;
      return;
    }
    const auto tasks = [&] {
      return static_cast<double>(ceilDivide(p_.m, taskRows_ * kBlockSide)) *
             ceilDivide(p_.n, taskColumns_ * kBlockSide);
    };
    while (tasks() < wanted && (taskRows_ > 1 || taskColumns_ > 1)) {
      int64_t& side = taskRows_ > 2 || taskColumns_ <= 2 ? taskRows_ : taskColumns_;
      side = (side + 1) / 2;
      if (taskRows_ == 1 && taskColumns_ <= 2) break;
    }
    taskRows_ *= kBlockSide;
    taskColumns_ *= kBlockSide;
  }

  int64_t biasLength() const {
    return ceilDivide(p_.biasColumn ? p_.n : p_.m, kBlockSide) * kBlockSide;
  }
  void readBias(float* bias) {
    const int64_t count = p_.biasColumn ? p_.n : p_.m;
    const int64_t stride = p_.biasColumn ? p_.biasColumn : p_.biasRow;
    for (int64_t i = 0; i < count; i++) {
      bias[i] = p_.biasIsFloat ? static_cast<const float*>(p_.bias)[i * stride]
                               : toFloat(static_cast<const BFloat16*>(p_.bias)[i * stride]);
    }
    std::fill(bias + count, bias + biasLength(), 0.0f);
    result_.bias = bias;
    result_.biasRow = p_.biasColumn ? 0 : 1;
    result_.biasColumn = p_.biasColumn ? 1 : 0;
  }

  // `tile` counts tiles of 16 rows or columns from the slab's begin; the source from depth k on.
  Bf16Source source(const Operand& x, int64_t first, int64_t size, int64_t tile, int64_t k) const {
    const int64_t at = (first + tile * kTileRows) * x.outer + k * x.depth;
    const char* data = static_cast<const char*>(x.data) + at * (x.isFloat ? 4 : 2);
    return {data,    x.isFloat, x.outer, x.depth, std::min(kTileRows, size - tile * kTileRows),
            p_.k - k};
  }
  int64_t rest(int64_t tiles) const { return planes_ == 2 ? tiles * steps_ * kTileElements : 0; }
  int64_t rowTiles() const { return ceilDivide(m_, kTileRows); }
  int64_t columnTiles() const { return ceilDivide(n_, kTileRows); }

  // The slab of a; that of b only for the first slab of a. Where the rows or columns of a step lie
  // side by side, their tiles are packed step after step: memory is read in the order in which it
  // lies.
  void pack(bool first) {
    const int64_t aTiles = rowTiles();
    const int64_t aUnits = goesByDepth(p_.a) ? steps_ : aTiles;
    const int64_t bUnits = first && !packsInTask_ ? unitsOfColumns(n_) : 0;
    if (!readsA_) {
      for (int64_t i = 0; i < aTiles; i++) {
        const uint16_t* tile = packedA_ + i * steps_ * kTileElements;
        rows_[i] = pairsA_ ? Bf16Rows{tile, 2, kTileElements, nullptr, 2 * kTileRows}
                           : Bf16Rows{tile, kTileDepth, kTileElements, nullptr};
      }
    }
    const int64_t largest = std::max(goesByDepth(p_.a) ? m_ * kTileDepth : kTileRows * p_.k,
                                     goesByDepth(p_.b) ? n_ * kTileDepth : kTileRows * p_.k);
    const int64_t grain = std::max<int64_t>(1, kPackGrain / std::max<int64_t>(1, largest));
    parallelFor(aUnits + bUnits, grain, [&](int64_t begin, int64_t end) {
      bool isFinite = true;
      for (int64_t i = begin; i < end; i++) {
        isFinite &= i < bUnits ? packColumns(i) : packRows(i - bUnits);
      }
      if (!isFinite) isFinite_.store(false, std::memory_order_relaxed);
    });
  }
  static bool goesByDepth(const Operand& x) { return x.outer == 1 && x.depth != 1; }

  // Unit `i` of b: a tile over the whole depth, or a step of all tiles.
  bool packColumns(int64_t i) {
    return packUnit(table_.packPairs, p_.b, packedB_, firstColumn_, n_, i);
  }
  int64_t unitsOfColumns(int64_t n) const {
    return goesByDepth(p_.b) ? steps_ : ceilDivide(n, kTileRows);
  }
  bool packUnit(decltype(GemmBf16Table::packPairs) pack, const Operand& x, uint16_t* to,
                int64_t first, int64_t size, int64_t i) const {
    const int64_t tiles = ceilDivide(size, kTileRows), tileSize = steps_ * kTileElements;
    if (!goesByDepth(x)) return pack(to + i * tileSize, rest(tiles), source(x, first, size, i, 0));
    bool isFinite = true;
    int64_t tile = 0;
    if (pack == table_.packPairs && !x.isFloat && (i + 1) * kTileDepth <= p_.k) {
      const Bf16Source step = source(x, first, size, 0, i * kTileDepth);
      tile = size / kTileRows;
      table_.packStep(to + i * kTileElements, tileSize, static_cast<const uint16_t*>(step.data),
                      x.depth, tile);
    }
    for (; tile < tiles; tile++) {
      Bf16Source step = source(x, first, size, tile, i * kTileDepth);
      step.depth = std::min(step.depth, kTileDepth);
      isFinite &= pack(to + tile * tileSize + i * kTileElements, rest(tiles), step);
    }
    return isFinite;
  }

  bool packRows(int64_t i) {
    if (!readsA_) {
      const auto pack = pairsA_ ? table_.packPairs : table_.packRows;
      return packUnit(pack, p_.a, packedA_, firstRow_, m_, i);
    }
    Bf16Rows& rows = rows_[i];
    const Bf16Source whole = source(p_.a, firstRow_, m_, i, 0);
    uint16_t* edge = packedA_ + i * kTileElements;
    if (whole.count < kTileRows) {
      // The last rows: all of their tiles but the one at the end of the depth.
      uint16_t* to = packedA_ + slabRows_ / kTileRows * kTileElements;
      Bf16Source inner = whole;
      inner.depth = wholeSteps() * kTileDepth;
      table_.packRows(to, 0, inner);
      rows = {to, kTileDepth, kTileElements, edge};
    } else {
      rows = {static_cast<const uint16_t*>(whole.data), p_.a.outer, kTileDepth, edge};
    }
    if (wholeSteps() < steps_) {
      table_.packRows(edge, 0, source(p_.a, firstRow_, m_, i, wholeSteps() * kTileDepth));
    }
    return true;
  }
  int64_t wholeSteps() const { return readsA_ ? p_.k / kTileDepth : steps_; }

  void multiplySlab() {
    const int64_t across = ceilDivide(n_, taskColumns_), down = ceilDivide(m_, taskRows_);
    parallelFor(across * down, 1, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; task++) {
        multiplyTask(task / across * taskRows_, task % across * taskColumns_);
      }
    });
  }

  void multiplyTask(int64_t i, int64_t j) const {
    Bf16Block g;
    g.m = std::min(taskRows_, m_ - i);
    g.n = std::min(taskColumns_, n_ - j);
    g.whole = wholeSteps();
    g.rows = rows_ + i / kTileRows;
    g.columnTile = steps_ * kTileElements;
    Workspace packed(packsInTask_ ? ceilDivide(g.n, kTileRows) * g.columnTile * sizeof(uint16_t)
                                  : 0);
    g.columns = packsInTask_ ? packed.as<uint16_t>() : packedB_ + j / kTileRows * g.columnTile;
    for (int64_t unit = 0; packsInTask_ && unit < unitsOfColumns(g.n); unit++) {
      packUnit(table_.packPairs, p_.b, packed.as<uint16_t>(), firstColumn_ + j, g.n, unit);
    }
    g.terms = p_.terms;
    g.rowsRest = rest(rowTiles());
    g.columnsRest = rest(columnTiles());
    g.result = &result_;
    g.i = firstRow_ + i;
    g.j = firstColumn_ + j;
    g.finish = table_.finish;
    const DepthBlocks depth(steps_, kDepthSteps);
    const int64_t blocks = ceilDivide(g.m, kBlockSide) * ceilDivide(g.n, kBlockSide);
    Workspace sums(depth.count > 1 ? blocks * kBlockElements * sizeof(float) : 0);
    g.sums = sums.as<float>();
    for (int64_t d = 0; d < depth.count; d++) {
      g.begin = depth.begin(d);
      g.end = depth.end(d);
      g.isFirst = d == 0;
      g.isLast = d + 1 == depth.count;
      multiply_(g);
    }
  }

  const Bf16Product& p_;
  Bf16Multiply multiply_;
  const GemmBf16Table& table_;
  int64_t steps_, planes_;
  bool readsA_;
  bool pairsA_;               // packed in the order in which it lies, that of pairs
  bool packsInTask_ = false;  // b
  int64_t slabRows_, slabColumns_, taskRows_, taskColumns_;
  uint16_t *packedA_ = nullptr, *packedB_ = nullptr;
  Bf16Rows* rows_ = nullptr;
  Bf16Result result_{};
  int64_t firstRow_ = 0, firstColumn_ = 0, m_ = 0, n_ = 0;  // the slab at hand
  std::atomic<bool> isFinite_{true};
};

}  // namespace

Bf16Multiply bf16Multiply() {
#if defined(ADJOINT_HAS_AVX512)
  if (hasFeature(Feature::amxBf16)) return amx::multiplyBf16;
  if (hasFeature(Feature::avx512Bf16)) return avx512bf16::multiplyBf16;
#endif
  return {};
}

bool gemmBf16(const Bf16Product& product, Bf16Multiply multiply) {
  if (product.m == 0 || product.n == 0) return true;
  const Bf16Product flipped = transposed(product);
  const bool flips =
      movingCost(flipped, multiply.readsPairs) < movingCost(product, multiply.readsPairs);
  return TiledProduct(flips ? flipped : product, multiply).run();
}

}  // namespace adjoint::cpu
