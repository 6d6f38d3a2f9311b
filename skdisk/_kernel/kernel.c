/* Train a multilayer perceptron on one core, and let it predict. C11 with the vector extensions of
   GCC and Clang; no Python here.

   Notation, for a batch of b rows; layer l = 1 ... L has n_l units, n_0 features go in and n_L = C
   classes or labels come out. Everything lies features first, one column a row of data:

       A_0   (n_0, b)          the data, transposed
       W_l   (n_l, n_{l-1})    the weights of layer l, and b_l (n_l, 1) its biases
       Z_l = W_l A_{l-1} + b_l
       A_l = f(Z_l) * M_l      for l < L; M_l: dropout, 0 or 1 / (1 - p), without it 1
       S_l = f'(Z_l) * M_l     the slopes, stored on the way forward
       P                       (C, b): the softmax of Z_L, each column sums to 1, or the sigmoid
       T                       (C, b): T_ij = 1 where row j is of class i, or has label i, else 0
       r                       (1, b), the rows' weights over b

   The loss is L = - sum_j r_j log P_{y_j, j} with the softmax, where row j is of class y_j, and
   L = - sum_ij r_j (T_ij log P_ij + (1 - T_ij) log(1 - P_ij)) with the sigmoid. With
   D_l = dL / dZ_l the chain rule gives

       D_L     = (P - T) * r                of both; of softmax as d(-log P_y) / dZ_i = P_i - T_i
       D_{l-1} = (W_l^T D_l) * S_{l-1}
       dL/dW_l = D_l A_{l-1}^T              dL/db_l = sum of D_l over its columns

   Columns come in panels of PANEL rows of data, two vectors: A[panel][unit][PANEL]. So all three
   products are one routine, `multiply`, which broadcasts the numbers of its left side and reads
   its right side in vectors; W_l^T is W_l read by columns. Only A^T has to be made, by transposing
   squares in registers: lanes of vectors are rows of data in A, and units in A^T.

   Order. Every number of a product is a sum over one index, in ascending order, whatever the width
   of the vectors; a sum across lanes is a sum in 16 lanes, row j in lane j mod 16, then of halves:
   lanes 0 ... 7 and 8 ... 15, and so on. Products that are added are fused where the text says
   `fused`, and nowhere else (-ffp-contract=off). So AVX2, AVX-512 and NEON give equal bits; base
   has no fused operation and rounds twice.

   The second half of the file is the arithmetic. The first half is what needs no vectors, and
   includes the second once for each instruction set. */
#ifndef LANES

#include "kernel.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#if !defined(__GNUC__)
#error "the kernel needs the vector extensions of GCC or Clang"
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

/* Between parts of a block of memory the address sanitizer sees only what it is told. */
#if defined(__has_feature) /* Clang's way to say it, __SANITIZE_ADDRESS__ is GCC's */
#define HAS_FEATURE(name) __has_feature(name)
#else
#define HAS_FEATURE(name) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || HAS_FEATURE(address_sanitizer)
#include <sanitizer/asan_interface.h>
#define GAP ALIGNMENT
#else
#define GAP                                    0
#define ASAN_POISON_MEMORY_REGION(start, size) ((void)0)
#endif

#define INLINE        static inline __attribute__((always_inline))
#define ALIGNMENT     64 /* bytes of a line of the cache */
#define MOST_BYTES    (PTRDIFF_MAX / 4)
#define SUM_LANES     16    /* lanes of a sum across lanes */
#define WIDEST_PANEL  32    /* rows of data in a panel of the widest vectors */
#define CACHED_FLOATS 32768 /* a part of the second cache, for the left side of a product */
/* A use of a weight for a row takes about 0.03 to 1 ns. */
#define USES_UNTIL_ASKED (1 << 22)

/* --------------------------------------------------------------------- numbers without vectors */

static int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static double raise(double base, int64_t exponent) {
    double power = 1;
    for (; exponent; exponent >>= 1, base *= base)
        if (exponent & 1) power *= base;
    return power;
}

/* Scatter a key, as `mix` of the Python package's module `noise` does: unsigned products wrap
   around, shifts carry the sign. */
static int64_t mix(int64_t key) {
    uint64_t k = (uint64_t)key;
    k = (k ^ (uint64_t)((int64_t)k >> 30)) * 0xBF58476D1CE4E5B9;
    k = (k ^ (uint64_t)((int64_t)k >> 27)) * 0x94D049BB133111EB;
    return (int64_t)(k ^ (uint64_t)((int64_t)k >> 31));
}

/* Draw the 32 bits of a row or a unit, `draw_bits` there. */
static int32_t draw_bits(int64_t key, int64_t seed) {
    return (int32_t)(mix((int64_t)((uint64_t)key + (uint64_t)seed)) >> 32);
}

/* The number that evenly distributed int32 are below with probability p. */
static int32_t make_threshold(double p) {
    double scaled = p * 4294967296.0;
    double to_whole = 4503599627370496.0; /* 2^52: rounds half to even */
    scaled = scaled + to_whole - to_whole;
    return (int32_t)((int64_t)(scaled > 4294967295.0 ? 4294967295.0 : scaled) - 2147483648LL);
}

/* ---------------------------------------------------------------------------- rows of features */

static int64_t index_at(const void *indices, bool is_long, int64_t i) {
    return is_long ? ((const int64_t *)indices)[i] : ((const int32_t *)indices)[i];
}

/* Write a row as float32: feature k at to[k / panel * step + k % panel]. */
INLINE void gather_row(const Rows *X, int64_t row, float *to, int64_t panel, int64_t step) {
    int64_t n = X->n_features;
    if (X->indptr) {
        for (int64_t k = 0; k < n; k += panel)
            memset(to + k / panel * step, 0, sizeof(float) * (size_t)least(panel, n - k));
        int64_t end = index_at(X->indptr, X->long_indptr, row + 1);
        for (int64_t i = index_at(X->indptr, X->long_indptr, row); i < end; i++) {
            int64_t k = index_at(X->indices, X->long_indices, i);
            to[k / panel * step + k % panel] += X->singles[i];
        }
    } else if (X->doubles) {
        const double *from = X->doubles + row * n;
        for (int64_t k = 0; k < n; k += panel)
            for (int64_t i = 0; i < least(panel, n - k); i++)
                to[k / panel * step + i] = (float)from[k + i];
    } else {
        const float *from = X->singles + row * n;
        for (int64_t k = 0; k < n; k += panel)
            memcpy(to + k / panel * step, from + k, sizeof(float) * (size_t)least(panel, n - k));
    }
}

/* -------------------------------------------------------------------------------------- memory */

/* Hands out parts of a block of memory; without a block, finds out how large it must be. */
typedef struct {
    char *block;
    size_t used;
    bool overflows;
} Cursor;

static void *take(Cursor *cursor, int64_t rows, int64_t columns, size_t size) {
    size_t n, bytes;
    if (__builtin_mul_overflow(rows, columns, &n) || __builtin_mul_overflow(n, size, &bytes) ||
        bytes > MOST_BYTES || cursor->used > MOST_BYTES) {
        cursor->overflows = true;
        return NULL;
    }
    char *part = cursor->block ? cursor->block + cursor->used : NULL;
    cursor->used += (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT + GAP;
    if (part) ASAN_POISON_MEMORY_REGION(part + bytes, cursor->block + cursor->used - part - bytes);
    return part;
}

/* Give the cursor a block, of zeros, of the size that it has found out. NULL: no memory. */
static void *open_block(Cursor *cursor) {
    if (cursor->overflows) return NULL;
    char *memory = calloc(cursor->used + ALIGNMENT, 1);
    if (!memory) return NULL;
    cursor->block = memory + (ALIGNMENT - (uintptr_t)memory % ALIGNMENT) % ALIGNMENT;
    cursor->used = 0;
    return memory;
}

/* -------------------------------------------------------------------- what training works with */

/* A layer. Layer 0 is the data: it has n_units, A and AT only. */
typedef struct {
    int64_t n_inputs, n_units;
    int64_t row;         /* floats from a row of W to the next */
    int64_t at, at_bias; /* where W and the biases are in padded parameters */
    float *A;            /* A_l; on the way back D_l; of the last layer Z_L, then D_L */
    float *AT;           /* A_l^T: [panel of units][row of data][PANEL], not of the last layer */
    float *S;            /* S_l, of hidden layers; NULL where none is needed */
    int32_t *unit_bits;  /* of hidden layers with dropout, else NULL */
    int32_t threshold;
    float scale;
} Layer;

typedef struct {
    const Network *network;
    const Settings *settings;
    const Data *data;
    const Epochs *epochs;
    const Watch *watch;
    int64_t since_asked;
    Layer *layers; /* L + 1 */
    /* Parameters, gradient and memory with rows padded to whole vectors; the padding stays out of
       all results. */
    int64_t n_padded;
    float *W, *G, *memory[2];
    int64_t n_steps;
    int64_t room; /* rows of the largest batch, padded to whole panels */
    float *r, *row_losses;
    int64_t *labels; /* of softmax: y */
    float *T;        /* of sigmoid: T, which lies like Z_L */
    int32_t *row_bits;
    void *block;
} Training;

/* Tell whether to go on, after `uses` more uses of a weight for a row. */
static bool goes_on(const Watch *watch, int64_t uses, int64_t *since_asked) {
    *since_asked += uses;
    if (*since_asked < USES_UNTIL_ASKED) return true;
    *since_asked = 0;
    return watch->goes_on(watch->caller);
}

/* Whether an optimiser remembers something in memory i. */
static bool remembers(const Settings *settings, int i) {
    return settings->optimizer == SGD ? i == 0 && settings->momentum != 0 : true;
}

/* Rows of W whose distance is a multiple of 512 bytes would share few sets of the first cache. */
static int64_t pad_row(int64_t n) {
    int64_t padded = round_up(n, SUM_LANES);
    return padded % 128 ? padded : padded + SUM_LANES;
}

static void lay_out_parameters(Training *t) {
    int64_t end = 0;
    for (int64_t l = 0; l <= t->network->n_layers; l++) {
        Layer *layer = t->layers + l;
        layer->n_units = t->network->sizes[l];
        if (l == 0) continue;
        layer->n_inputs = t->network->sizes[l - 1];
        layer->row = pad_row(layer->n_inputs);
        layer->at = end;
        layer->at_bias = end + layer->n_units * layer->row;
        end = layer->at_bias + round_up(layer->n_units, SUM_LANES);
    }
    t->n_padded = end;
}

static void lay_out(Training *t, Cursor *cursor) {
    int64_t L = t->network->n_layers;
    const double *dropout = t->settings->dropout;
    t->W = take(cursor, t->n_padded, 1, sizeof(float));
    t->G = take(cursor, t->n_padded, 1, sizeof(float));
    for (int i = 0; i < 2; i++)
        if (remembers(t->settings, i)) t->memory[i] = take(cursor, t->n_padded, 1, sizeof(float));
    for (int64_t l = 0; l <= L; l++) {
        Layer *layer = t->layers + l;
        layer->A = take(cursor, layer->n_units, t->room, sizeof(float));
        if (l < L)
            layer->AT =
                take(cursor, round_up(layer->n_units, WIDEST_PANEL), t->room, sizeof(float));
        if (l == 0 || l == L) continue;
        layer->S = take(cursor, layer->n_units, t->room, sizeof(float));
        if (dropout && dropout[l - 1] > 0)
            layer->unit_bits = take(cursor, layer->n_units, 1, sizeof(int32_t));
    }
    t->r = take(cursor, t->room, 1, sizeof(float));
    t->row_losses = take(cursor, t->room, 1, sizeof(float));
    if (t->network->output == SIGMOID)
        t->T = take(cursor, t->network->sizes[L], t->room, sizeof(float));
    else t->labels = take(cursor, t->room, 1, sizeof(int64_t));
    t->row_bits = take(cursor, t->room, 1, sizeof(int32_t));
}

static void prepare_dropout(Training *t) {
    for (int64_t l = 1; l < t->network->n_layers; l++) {
        Layer *layer = t->layers + l;
        if (!layer->unit_bits) continue;
        for (int64_t unit = 0; unit < layer->n_units; unit++)
            layer->unit_bits[unit] = draw_bits(unit, l << 40);
        layer->threshold = make_threshold(t->settings->dropout[l - 1]);
        layer->scale = (float)(1 / (1 - t->settings->dropout[l - 1]));
    }
}

/* Copy between parameters as the caller has them, one after another, and padded ones. */
static void copy_parameters(const Training *t, float *flat, float *padded, bool to_padded) {
    for (int64_t l = 1; l <= t->network->n_layers; l++) {
        const Layer *layer = t->layers + l;
        int64_t n = layer->n_inputs, n_units = layer->n_units;
        for (int64_t unit = 0; unit <= n_units; unit++) {
            float *row =
                padded + (unit < n_units ? layer->at + unit * layer->row : layer->at_bias);
            size_t bytes = sizeof(float) * (size_t)(unit < n_units ? n : n_units);
            if (to_padded) memcpy(row, flat, bytes);
            else memcpy(flat, row, bytes);
            flat += unit < n_units ? n : n_units;
        }
    }
}

static void load_state(Training *t, const State *state) {
    copy_parameters(t, state->parameters, t->W, true);
    for (int i = 0; i < 2; i++)
        if (t->memory[i]) copy_parameters(t, state->memory[i], t->memory[i], true);
    t->n_steps = state->n_steps;
}

static void store_state(const Training *t, State *state) {
    copy_parameters(t, state->parameters, t->W, false);
    for (int i = 0; i < 2; i++)
        if (t->memory[i]) copy_parameters(t, state->memory[i], t->memory[i], false);
    state->n_steps = t->n_steps;
}

static bool are_finite(const float *x, int64_t n) {
    uint32_t found = 0;
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, sizeof bits);
        found |= (bits & 0x7F800000u) == 0x7F800000u;
    }
    return !found;
}

static bool weights_are_finite(const Training *t) {
    bool finite = true;
    for (int64_t l = 1; l <= t->network->n_layers && finite; l++) {
        const Layer *layer = t->layers + l;
        for (int64_t unit = 0; unit < layer->n_units && finite; unit++)
            finite = are_finite(t->W + layer->at + unit * layer->row, layer->n_inputs);
        finite = finite && are_finite(t->W + layer->at_bias, layer->n_units);
    }
    return finite;
}

static bool open_training(Training *t, const State *state) {
    int64_t batch_size = least(t->settings->batch_size, t->epochs->n_rows);
    t->room = round_up(batch_size, WIDEST_PANEL);
    t->layers = calloc((size_t)t->network->n_layers + 1, sizeof(Layer));
    if (!t->layers) return false;
    lay_out_parameters(t);
    Cursor cursor = {0};
    lay_out(t, &cursor);
    t->block = open_block(&cursor);
    if (!t->block) return false;
    lay_out(t, &cursor);
    prepare_dropout(t);
    load_state(t, state);
    return true;
}

static void close_training(Training *t) {
    free(t->block);
    free(t->layers);
}

/* ------------------------------------------------------------------ what prediction works with */

typedef struct {
    const Network *network;
    const float *parameters;
    int64_t n_parameters;
    int64_t widest; /* units of the widest layer */
    float *staged;  /* rows of a panel, as they come: A_0^T */
    float *A[2];    /* in turn A_{l-1} and A_l, a panel */
    double *P;      /* of a panel */
    void *block;
} Prediction;

static void lay_out_prediction(Prediction *p, Cursor *cursor) {
    int64_t n_features = round_up(p->network->sizes[0], WIDEST_PANEL);
    p->staged = take(cursor, n_features, WIDEST_PANEL, sizeof(float));
    for (int i = 0; i < 2; i++) p->A[i] = take(cursor, p->widest, WIDEST_PANEL, sizeof(float));
    p->P = take(cursor, p->network->sizes[p->network->n_layers], WIDEST_PANEL, sizeof(double));
}

static bool open_prediction(Prediction *p) {
    const int64_t *sizes = p->network->sizes;
    for (int64_t l = 0; l <= p->network->n_layers; l++) {
        if (sizes[l] > p->widest) p->widest = sizes[l];
        if (l) p->n_parameters += sizes[l] * (sizes[l - 1] + 1);
    }
    Cursor cursor = {0};
    lay_out_prediction(p, &cursor);
    p->block = open_block(&cursor);
    if (!p->block) return false;
    lay_out_prediction(p, &cursor);
    return true;
}

/* --------------------------------------------------- the second half, for each instruction set */

#define GLUE_LATER(a, b) a##b
#define GLUE(a, b)       GLUE_LATER(a, b)
#define NAME(function)   GLUE(function, SUFFIX)

/* HEIGHT: rows of a tile of a product, as many as the registers hold. */
#define SUFFIX         _base
#define LANES          4
#define HEIGHT         4
#define FUSED(a, b, c) ((a) * (b) + (c))
#include "kernel.c"

#if defined(__aarch64__)
#define SUFFIX         _neon
#define LANES          4
#define HEIGHT         8
#define FUSED(a, b, c) (Floats) vfmaq_f32((float32x4_t)(c), (float32x4_t)(a), (float32x4_t)(b))
#define FUSED_DOUBLES(a, b, c) \
    (Doubles) vfmaq_f64((float64x2_t)(c), (float64x2_t)(a), (float64x2_t)(b))
#define ROOT(x) (Floats) vsqrtq_f32((float32x4_t)(x))
#include "kernel.c"
#endif

#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
#define SUFFIX                 _avx2
#define LANES                  8
#define HEIGHT                 6
#define FUSED(a, b, c)         (Floats) _mm256_fmadd_ps((__m256)(a), (__m256)(b), (__m256)(c))
#define FUSED_DOUBLES(a, b, c) (Doubles) _mm256_fmadd_pd((__m256d)(a), (__m256d)(b), (__m256d)(c))
#define ROOT(x)                (Floats) _mm256_sqrt_ps((__m256)(x))
#include "kernel.c"
#if defined(__clang__)
#pragma clang attribute pop
#pragma clang attribute push( \
    __attribute__((target("avx2,fma,avx512f,avx512dq,avx512bw,avx512vl"))), apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512dq,avx512bw,avx512vl")
#endif
#define SUFFIX                 _avx512
#define LANES                  16
#define HEIGHT                 8
#define FUSED(a, b, c)         (Floats) _mm512_fmadd_ps((__m512)(a), (__m512)(b), (__m512)(c))
#define FUSED_DOUBLES(a, b, c) (Doubles) _mm512_fmadd_pd((__m512d)(a), (__m512d)(b), (__m512d)(c))
#define ROOT(x)                (Floats) _mm512_sqrt_ps((__m512)(x))
#include "kernel.c"
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

/* ------------------------------------------------------------------------------- the functions */

typedef struct {
    Status (*train)(Training *, State *, float *, int64_t *);
    Status (*evaluate)(Prediction *, const Data *, const Watch *, double *);
    void (*predict)(Prediction *, const Rows *, Form, double *);
    void (*compute_outputs)(Prediction *, const Rows *, int64_t, float *);
} Routines;

#define ROUTINES(suffix) \
    {GLUE(train, suffix), GLUE(evaluate, suffix), GLUE(predict, suffix), \
     GLUE(compute_outputs, suffix)}

static const Routines ROUTINES_OF[N_INSTRUCTION_SETS] = {
    [BASE] = ROUTINES(_base),
#if defined(__aarch64__)
    [NEON] = ROUTINES(_neon),
#endif
#if defined(__x86_64__)
    [AVX2] = ROUTINES(_avx2),
    [AVX512] = ROUTINES(_avx512),
#endif
};

bool kernel_has(InstructionSet set) {
#if defined(__x86_64__)
    __builtin_cpu_init();
#endif
    switch (set) {
    case BASE: return true;
#if defined(__x86_64__)
    case AVX2: return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case AVX512:
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
               kernel_has(AVX2);
#endif
#if defined(__aarch64__)
    case NEON: return true;
#endif
    default: return false;
    }
}

/* Few rows leave most of 16 lanes idle. */
static const Routines *choose_routines(InstructionSet set, int64_t n_rows_at_once) {
    return &ROUTINES_OF[set == AVX512 && n_rows_at_once <= 8 ? AVX2 : set];
}

Status kernel_train(InstructionSet set, const Network *network, const Settings *settings,
                    const Data *data, const Epochs *epochs, const Watch *watch, State *state,
                    float *losses, int64_t *n_done) {
    Training training = {.network = network,
                         .settings = settings,
                         .data = data,
                         .epochs = epochs,
                         .watch = watch};
    Status status = NO_MEMORY;
    *n_done = 0;
    if (open_training(&training, state)) {
        int64_t n_rows = least(settings->batch_size, epochs->n_rows);
        status = choose_routines(set, n_rows)->train(&training, state, losses, n_done);
    }
    close_training(&training);
    return status;
}

Status kernel_evaluate(InstructionSet set, const Network *network, const float *parameters,
                       const Data *data, const Watch *watch, double *sums) {
    Prediction prediction = {.network = network, .parameters = parameters};
    if (!open_prediction(&prediction)) return NO_MEMORY;
    Status status = choose_routines(set, data->X.n_rows)->evaluate(&prediction, data, watch, sums);
    free(prediction.block);
    return status;
}

Status kernel_predict(InstructionSet set, const Network *network, const float *parameters,
                      const Rows *X, Form form, double *out) {
    Prediction prediction = {.network = network, .parameters = parameters};
    if (!open_prediction(&prediction)) return NO_MEMORY;
    choose_routines(set, X->n_rows)->predict(&prediction, X, form, out);
    free(prediction.block);
    return DONE;
}

Status kernel_compute_outputs(InstructionSet set, const Network *network, const float *parameters,
                              const Rows *X, int64_t layer, float *out) {
    Prediction prediction = {.network = network, .parameters = parameters};
    if (!open_prediction(&prediction)) return NO_MEMORY;
    choose_routines(set, X->n_rows)->compute_outputs(&prediction, X, layer, out);
    free(prediction.block);
    return DONE;
}

#else /* ============================================== the arithmetic, once per instruction set */

#define PANEL                (2 * LANES)
#define HALF                 (LANES / 2)

/* Every name of the second half is a name of one instruction set. */
#define Floats               NAME(Floats)
#define Ints                 NAME(Ints)
#define Words                NAME(Words)
#define Doubles              NAME(Doubles)
#define Longs                NAME(Longs)
#define LongWords            NAME(LongWords)
#define HalfFloats           NAME(HalfFloats)
#define StoredFloats         NAME(StoredFloats)
#define StoredHalf           NAME(StoredHalf)
#define StoredDoubles        NAME(StoredDoubles)
#define load                 NAME(load)
#define store                NAME(store)
#define fill                 NAME(fill)
#define choose               NAME(choose)
#define fused                NAME(fused)
#define root                 NAME(root)
#define sum_lanes            NAME(sum_lanes)
#define split_exp            NAME(split_exp)
#define exponential          NAME(exponential)
#define exponential_less_one NAME(exponential_less_one)
#define logarithm            NAME(logarithm)
#define hyperbolic_tangent   NAME(hyperbolic_tangent)
#define sigmoid              NAME(sigmoid)
#define normal               NAME(normal)
#define activate             NAME(activate)
#define Product              NAME(Product)
#define tile                 NAME(tile)
#define multiply_wide        NAME(multiply_wide)
#define multiply             NAME(multiply)
#define multiply_forward     NAME(multiply_forward)
#define multiply_backward    NAME(multiply_backward)
#define Shape                NAME(Shape)
#define make_shape           NAME(make_shape)
#define width_of             NAME(width_of)
#define rows_at_once         NAME(rows_at_once)
#define multiply_gradient    NAME(multiply_gradient)
#define turn_fours           NAME(turn_fours)
#define turn                 NAME(turn)
#define transpose_square     NAME(transpose_square)
#define transpose            NAME(transpose)
#define transpose_back       NAME(transpose_back)
#define part_of              NAME(part_of)
#define sum_row              NAME(sum_row)
#define sum_columns          NAME(sum_columns)
#define compute_scores       NAME(compute_scores)
#define draw_mask            NAME(draw_mask)
#define activate_layer_by    NAME(activate_layer_by)
#define activate_layer       NAME(activate_layer)
#define go_forward           NAME(go_forward)
#define derive_loss          NAME(derive_loss)
#define derive_label_losses  NAME(derive_label_losses)
#define go_back_to_scores    NAME(go_back_to_scores)
#define compute_gradient     NAME(compute_gradient)
#define go_back_through      NAME(go_back_through)
#define go_back              NAME(go_back)
#define clip_gradient        NAME(clip_gradient)
#define step_by_sgd          NAME(step_by_sgd)
#define step_by_adam         NAME(step_by_adam)
#define step                 NAME(step)
#define take_batch           NAME(take_batch)
#define train_batch          NAME(train_batch)
#define train_epoch          NAME(train_epoch)
#define fill_doubles         NAME(fill_doubles)
#define choose_doubles       NAME(choose_doubles)
#define fused_doubles        NAME(fused_doubles)
#define exponential_doubles  NAME(exponential_doubles)
#define logarithm_doubles    NAME(logarithm_doubles)
#define logarithm_plus_one   NAME(logarithm_plus_one)
#define note_overflow        NAME(note_overflow)
#define predict_layers       NAME(predict_layers)
#define take_panel           NAME(take_panel)
#define widen                NAME(widen)
#define normalise            NAME(normalise)
#define normalise_each       NAME(normalise_each)
#define transform            NAME(transform)
#define is_first_of_largest  NAME(is_first_of_largest)
#define turn_to_targets      NAME(turn_to_targets)

typedef float Floats __attribute__((vector_size(4 * LANES)));
typedef int32_t Ints __attribute__((vector_size(4 * LANES)));
typedef uint32_t Words __attribute__((vector_size(4 * LANES)));
typedef double Doubles __attribute__((vector_size(4 * LANES)));
typedef int64_t Longs __attribute__((vector_size(4 * LANES)));
typedef uint64_t LongWords __attribute__((vector_size(4 * LANES)));
typedef float HalfFloats __attribute__((vector_size(2 * LANES)));
/* As they lie in memory: anywhere, and beside single numbers. */
typedef float StoredFloats __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef float StoredHalf __attribute__((vector_size(2 * LANES), aligned(4), may_alias));
typedef double StoredDoubles __attribute__((vector_size(4 * LANES), aligned(8), may_alias));

/* ------------------------------------------------------------------------------------- vectors */

INLINE Floats load(const float *from) { return *(const StoredFloats *)from; }

INLINE void store(float *to, Floats x) { *(StoredFloats *)to = x; }

INLINE Floats fill(float x) { return x - (Floats){0}; }

INLINE Floats choose(Ints where, Floats a, Floats b) {
    return (Floats)((where & (Ints)a) | (~where & (Ints)b));
}

/* a b + c, fused wherever the instruction set can */
INLINE Floats fused(Floats a, Floats b, Floats c) { return FUSED(a, b, c); }

INLINE Floats root(Floats x) {
#ifdef ROOT
    return ROOT(x);
#else
    for (int i = 0; i < LANES; i++) x[i] = __builtin_sqrtf(x[i]);
    return x;
#endif
}

/* Add up 16 lanes that lie in 16 / LANES vectors. */
INLINE float sum_lanes(const Floats *parts) {
    float x[SUM_LANES];
    memcpy(x, parts, sizeof x);
    for (int half = SUM_LANES / 2; half; half /= 2)
        for (int i = 0; i < half; i++) x[i] += x[i + half];
    return x[0];
}

/* ------------------------------------------------------------------------ functions of vectors */

/* x = n log 2 + t, n whole and |t| <= log(2) / 2; returns e^t - 1 by Taylor's series, and 2^n. For
   |x| <= 88; of NaN it is NaN. */
INLINE Floats split_exp(Floats x, Floats *power) {
    Floats to_whole = fill(12582912.0f); /* 1.5 * 2^23, whose last bit is 1 */
    Floats n = fused(x, fill(1.44269504f), to_whole);
    *power = (Floats)(((Words)n << 23) + 0x3F800000u);
    n -= to_whole;
    Floats t = fused(n, fill(-0.693359375f), x); /* log 2 in two parts */
    t = fused(n, fill(2.12194440e-4f), t);
    Floats p = fill(1.0f / 5040);
    p = fused(p, t, fill(1.0f / 720));
    p = fused(p, t, fill(1.0f / 120));
    p = fused(p, t, fill(1.0f / 24));
    p = fused(p, t, fill(1.0f / 6));
    p = fused(p, t, fill(0.5f));
    return fused(p, t * t, t);
}

/* e^x, at most 2e38 */
INLINE Floats exponential(Floats x) {
    Floats power, within = choose(x > 88.0f, fill(88.0f), choose(x < -87.0f, fill(-87.0f), x));
    Floats less_one = split_exp(within, &power);
    return choose(x < -87.0f, fill(0), fused(power, less_one, power));
}

/* e^x - 1 for x <= 88 */
INLINE Floats exponential_less_one(Floats x) {
    Floats power, less_one = split_exp(choose(x < -87.0f, fill(-87.0f), x), &power);
    return fused(power, less_one, power - 1.0f);
}

/* log x for normal x; of NaN and infinity it is NaN. x = 2^n m, 1/2 <= m^2 < 2;
   log m = 2 artanh s, s = (m - 1) / (m + 1) */
INLINE Floats logarithm(Floats x) {
    Words bits = (Words)x - 0x3F3504F3u; /* sqrt(1/2) */
    Floats n = __builtin_convertvector((Ints)bits >> 23, Floats);
    Floats m = (Floats)((bits & 0x7FFFFFu) + 0x3F3504F3u);
    Floats s = (m - 1.0f) / (m + 1.0f), z = s * s, p = fill(2.0f / 9);
    p = fused(p, z, fill(2.0f / 7));
    p = fused(p, z, fill(2.0f / 5));
    p = fused(p, z, fill(2.0f / 3));
    Floats log_m = fused(p, z * s, s + s);
    return fused(n, fill(0.69314718f), log_m) + (x - x);
}

/* tanh |x| = e / (e + 2) with e = e^2|x| - 1; from 9.1 on it rounds to 1 */
INLINE Floats hyperbolic_tangent(Floats x) {
    Words sign = (Words)x & 0x80000000u;
    Floats size = (Floats)((Words)x ^ sign), power;
    size = choose(size > 9.1f, fill(9.1f), size);
    Floats less_one = split_exp(size + size, &power);
    Floats e = fused(power, less_one, power - 1.0f);
    return (Floats)((Words)(e / (e + 2.0f)) | sign);
}

/* 0 where `exponential` grows no more: 6e-39 times a feature of 1e30 would be a gradient. */
INLINE Floats sigmoid(Floats x) {
    return choose(x < -88.0f, fill(0), 1.0f / (1.0f + exponential(-x)));
}

/* The normal distribution's Phi(x), and its density. Phi(-u) is the density by Mills' ratio, which
   is a polynomial in t = 1 / (1 + 0.3 u), fitted to 1.3e-7 of its value for 0 <= u <= 13.5 */
INLINE Floats normal(Floats x, Floats *density) {
    Floats u = (Floats)((Words)x & 0x7FFFFFFFu), t = 1.0f / fused(u, fill(0.3f), fill(1));
    Floats e = exponential(-0.5f * u * u), p = fill(0.0359319249f);
    p = fused(p, t, fill(-0.158276723f));
    p = fused(p, t, fill(0.208207746f));
    p = fused(p, t, fill(-0.0553948095f));
    p = fused(p, t, fill(0.12946967f));
    p = fused(p, t, fill(0.0996373614f));
    p = fused(p, t, fill(0.120798378f));
    p = fused(p, t, fill(0.119626389f));
    Floats tail = p * t * e;
    *density = e * 0.39894228f;
    return choose(x < 0, tail, 1.0f - tail);
}

/* a = f(z) and its slope, by the definitions of torch.nn. NaN stays NaN. */
INLINE Floats activate(Activation f, Floats z, Floats *slope) {
    const Floats zero = {0}, one = fill(1);
    const float alpha = f == SELU ? 1.6732632423543772f : 1;
    const float scale = f == SELU ? 1.0507009873554805f : 1;
    Floats a = z, density;
    *slope = one;
    switch (f) {
    case RELU: *slope = choose(z > 0, one, zero); return choose(z <= 0, zero, z);
    case LEAKY_RELU: *slope = choose(z > 0, one, fill(0.01f)); return z * *slope;
    case TANH:
        a = hyperbolic_tangent(z);
        *slope = fused(-a, a, one);
        return a;
    case LOGISTIC:
        a = sigmoid(z);
        *slope = fused(-a, a, a);
        return a;
    case SILU:
        a = sigmoid(z);
        *slope = a * fused(z, 1.0f - a, one);
        return z * a;
    case ELU:
    case SELU:
        a = alpha * exponential_less_one(choose(z > 0, zero, z));
        *slope = scale * choose(z > 0, one, a + alpha);
        return scale * choose(z > 0, z, a);
    case GELU:
        a = normal(z, &density);
        *slope = fused(z, density, a);
        return z * a;
    default: return a;
    }
}

/* ------------------------------------------------------------- functions of vectors of float64 */

INLINE Doubles fill_doubles(double x) { return x - (Doubles){0}; }

INLINE Doubles choose_doubles(Longs where, Doubles a, Doubles b) {
    return (Doubles)((where & (Longs)a) | (~where & (Longs)b));
}

INLINE Doubles fused_doubles(Doubles a, Doubles b, Doubles c) {
#ifdef FUSED_DOUBLES
    return FUSED_DOUBLES(a, b, c);
#else
    return a * b + c;
#endif
}

/* e^x for x <= 0, as `exponential` */
INLINE Doubles exponential_doubles(Doubles x) {
    Doubles to_whole = fill_doubles(6755399441055744.0); /* 1.5 * 2^52 */
    Doubles within = choose_doubles(x < -708, fill_doubles(-708), x);
    Doubles n = fused_doubles(within, fill_doubles(1.4426950408889634), to_whole);
    Doubles power = (Doubles)(((LongWords)n << 52) + 0x3FF0000000000000u);
    n -= to_whole;
    Doubles t = fused_doubles(n, fill_doubles(-0.693145751953125), within);
    t = fused_doubles(n, fill_doubles(-1.4286068203094173e-06), t);
    Doubles p = fill_doubles(1.0 / 6227020800);
    static const double factorials[] = {479001600, 39916800, 3628800, 362880, 40320, 5040,
                                        720,       120,      24,      6,      2};
#pragma GCC unroll 11
    for (int i = 0; i < 11; i++) p = fused_doubles(p, t, fill_doubles(1 / factorials[i]));
    p = fused_doubles(p, t * t, t);
    return choose_doubles(x < -708, fill_doubles(0), fused_doubles(power, p, power));
}

/* log x for x >= 1, as `logarithm` */
INLINE Doubles logarithm_doubles(Doubles x) {
    const LongWords half_root = (LongWords)fill_doubles(0.70710678118654752);
    LongWords bits = (LongWords)x - half_root;
    Doubles n = __builtin_convertvector((Longs)bits >> 52, Doubles);
    Doubles m = (Doubles)((bits & 0xFFFFFFFFFFFFFu) + half_root);
    Doubles s = (m - 1) / (m + 1), z = s * s, p = fill_doubles(2.0 / 23);
#pragma GCC unroll 10
    for (int i = 21; i >= 3; i -= 2) p = fused_doubles(p, z, fill_doubles(2.0 / i));
    Doubles log_m = fused_doubles(p, z * s, s + s);
    return fused_doubles(n, fill_doubles(0.69314718055994531), log_m) + (x - x);
}

INLINE Doubles widen(const float *from) {
    return __builtin_convertvector(*(const StoredHalf *)from, Doubles);
}

/* log(1 + s) for s >= 0, with all digits where s is small: what rounding takes from u = 1 + s is
   given back by the derivative, log(u + d) = log u + d / u */
INLINE Doubles logarithm_plus_one(Doubles s) {
    Doubles u = 1 + s;
    return logarithm_doubles(u) + (s - (u - 1)) / u;
}

/* ------------------------------------------------------------------------------------ products */

/* C(r, :) = (start_r + sum over panels t and terms k of P(r, t, k) Q(t, k, :)) * factor(r, :).
   Distances are those from a row, a term or a panel to the next. */
typedef struct {
    const float *P;
    ptrdiff_t P_row, P_term, P_panel;
    const float *Q;
    ptrdiff_t Q_panel;
    int64_t n_panels, n_terms, n_last; /* terms of a panel, and of the last one */
    const float *start;                /* NULL: 0 */
    const float *factor;               /* NULL: 1; lies like C */
    float *C;
    ptrdiff_t C_row;
} Product;

/* `height` rows of C, `width` vectors wide, in registers. */
INLINE void tile(int height, int width, Product c, int64_t row) {
    Floats sum[HEIGHT][2];
#pragma GCC unroll 8
    for (int r = 0; r < height; r++)
#pragma GCC unroll 2
        for (int v = 0; v < width; v++) sum[r][v] = fill(c.start ? c.start[row + r] : 0);
    for (int64_t panel = 0; panel < c.n_panels; panel++) {
        const float *p = c.P + row * c.P_row + panel * c.P_panel, *q = c.Q + panel * c.Q_panel;
        int64_t n = panel < c.n_panels - 1 ? c.n_terms : c.n_last;
        for (int64_t k = 0; k < n; k++, p += c.P_term, q += PANEL) {
            Floats right[2];
#pragma GCC unroll 2
            for (int v = 0; v < width; v++) right[v] = load(q + v * LANES);
#pragma GCC unroll 8
            for (int r = 0; r < height; r++) {
                Floats left = fill(p[r * c.P_row]);
#pragma GCC unroll 2
                for (int v = 0; v < width; v++) sum[r][v] = fused(left, right[v], sum[r][v]);
            }
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < height; r++)
#pragma GCC unroll 2
        for (int v = 0; v < width; v++) {
            ptrdiff_t at = (row + r) * c.C_row + v * LANES;
            store(c.C + at, c.factor ? sum[r][v] * load(c.factor + at) : sum[r][v]);
        }
}

INLINE void multiply_wide(int width, Product c, int64_t n_rows) {
    int64_t row = 0;
    for (; row + HEIGHT <= n_rows; row += HEIGHT) tile(HEIGHT, width, c, row);
    for (; row + 4 <= n_rows; row += 4) tile(4, width, c, row);
    for (; row + 2 <= n_rows; row += 2) tile(2, width, c, row);
    for (; row < n_rows; row++) tile(1, width, c, row);
}

INLINE void multiply(int width, Product c, int64_t n_rows) {
    if (width == 2) multiply_wide(2, c, n_rows);
    else multiply_wide(1, c, n_rows);
}

/* Z = W A + b, of one panel and n rows of W. */
static void multiply_forward(int width, int64_t n, const float *W, ptrdiff_t W_row,
                             const float *biases, int64_t n_inputs, const float *A, float *Z) {
    Product c = {.P = W,
                 .P_row = W_row,
                 .P_term = 1,
                 .Q = A,
                 .n_panels = 1,
                 .n_last = n_inputs,
                 .start = biases,
                 .C = Z,
                 .C_row = PANEL};
    multiply(width, c, n);
}

/* D_{l-1} = (W^T D) * S, of one panel and n columns of W. */
static void multiply_backward(int width, int64_t n, const float *W, ptrdiff_t W_row,
                              int64_t n_units, const float *D, const float *S, float *D_below) {
    Product c = {.P = W,
                 .P_row = 1,
                 .P_term = W_row,
                 .Q = D,
                 .n_panels = 1,
                 .n_last = n_units,
                 .factor = S,
                 .C = D_below,
                 .C_row = PANEL};
    multiply(width, c, n);
}

/* ----------------------------------------------------------------------------- a batch's shape */

/* Rows of a batch in panels; the last panel may have fewer rows, and use one of its vectors. */
typedef struct {
    int64_t n_rows, n_panels, n_last;
} Shape;

INLINE Shape make_shape(int64_t n_rows) {
    int64_t n_panels = (n_rows + PANEL - 1) / PANEL;
    return (Shape){n_rows, n_panels, n_rows - (n_panels - 1) * PANEL};
}

INLINE int width_of(Shape shape, int64_t panel) {
    return panel < shape.n_panels - 1 || shape.n_last > LANES ? 2 : 1;
}

/* How many rows of a product's left side, of n numbers each, stay in the cache; whole tiles. */
INLINE int64_t rows_at_once(int64_t n) {
    int64_t tiles = CACHED_FLOATS / n / (HEIGHT * 4);
    return (tiles > 1 ? tiles : 1) * HEIGHT * 4;
}

/* dL/dW = D A^T, of n rows of D and those columns of W that AT begins with. */
static void multiply_gradient(int width, int64_t n, Shape shape, const float *D, int64_t n_units,
                              const float *AT, float *G, ptrdiff_t G_row) {
    Product c = {.P = D,
                 .P_row = PANEL,
                 .P_term = 1,
                 .P_panel = n_units * PANEL,
                 .Q = AT,
                 .Q_panel = PANEL * PANEL,
                 .n_panels = shape.n_panels,
                 .n_terms = PANEL,
                 .n_last = shape.n_last,
                 .C = G,
                 .C_row = G_row};
    multiply(width, c, n);
}

/* ------------------------------------------------------------------------- transposing squares */

#if LANES == 4
#define EACH_FOUR(f) f(0)
#elif LANES == 8
#define EACH_FOUR(f) f(0), f(4)
#else
#define EACH_FOUR(f) f(0), f(4), f(8), f(12)
#endif
#define ZIP_LOW(i)         i, i + LANES, i + 1, i + 1 + LANES
#define ZIP_HIGH(i)        i + 2, i + 2 + LANES, i + 3, i + 3 + LANES
#define PAIR_LOW(i)        i, i + 1, i + LANES, i + 1 + LANES
#define PAIR_HIGH(i)       i + 2, i + 3, i + 2 + LANES, i + 3 + LANES
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)

/* Transpose each 4 x 4 numbers of four vectors. */
INLINE void turn_fours(Floats *a) {
    Floats low = SHUFFLE(a[0], a[1], EACH_FOUR(ZIP_LOW));
    Floats high = SHUFFLE(a[0], a[1], EACH_FOUR(ZIP_HIGH));
    Floats low2 = SHUFFLE(a[2], a[3], EACH_FOUR(ZIP_LOW));
    Floats high2 = SHUFFLE(a[2], a[3], EACH_FOUR(ZIP_HIGH));
    a[0] = SHUFFLE(low, low2, EACH_FOUR(PAIR_LOW));
    a[1] = SHUFFLE(low, low2, EACH_FOUR(PAIR_HIGH));
    a[2] = SHUFFLE(high, high2, EACH_FOUR(PAIR_LOW));
    a[3] = SHUFFLE(high, high2, EACH_FOUR(PAIR_HIGH));
}

/* Fours 0, 2, ... and 1, 3, ... of two vectors. */
#if LANES == 8
#define EVEN_FOURS 0, 1, 2, 3, 8, 9, 10, 11
#define ODD_FOURS  4, 5, 6, 7, 12, 13, 14, 15
#else
#define EVEN_FOURS 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27
#define ODD_FOURS  4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31
#endif

/* Transpose LANES vectors of LANES numbers. */
INLINE void turn(Floats *a) {
#pragma GCC unroll 4
    for (int i = 0; i < LANES; i += 4) turn_fours(a + i);
#if LANES == 8
#pragma GCC unroll 4
    for (int k = 0; k < 4; k++) {
        Floats x = a[k], y = a[4 + k];
        a[k] = SHUFFLE(x, y, EVEN_FOURS);
        a[4 + k] = SHUFFLE(x, y, ODD_FOURS);
    }
#elif LANES == 16
#pragma GCC unroll 4
    for (int k = 0; k < 4; k++) {
        Floats even = SHUFFLE(a[k], a[4 + k], EVEN_FOURS);
        Floats odd = SHUFFLE(a[k], a[4 + k], ODD_FOURS);
        Floats even2 = SHUFFLE(a[8 + k], a[12 + k], EVEN_FOURS);
        Floats odd2 = SHUFFLE(a[8 + k], a[12 + k], ODD_FOURS);
        a[k] = SHUFFLE(even, even2, EVEN_FOURS);
        a[4 + k] = SHUFFLE(odd, odd2, EVEN_FOURS);
        a[8 + k] = SHUFFLE(even, even2, ODD_FOURS);
        a[12 + k] = SHUFFLE(odd, odd2, ODD_FOURS);
    }
#endif
}

/* Transpose n_from rows of LANES numbers into n_to rows; what is missing is 0. Rows are PANEL
   apart on both sides. */
INLINE void transpose_square(const float *from, int64_t n_from, float *to, int64_t n_to) {
    Floats a[LANES];
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++) a[i] = i < n_from ? load(from + i * PANEL) : (Floats){0};
    turn(a);
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++)
        if (i < n_to) store(to + i * PANEL, a[i]);
}

/* A^T of A. */
static void transpose(Shape shape, int64_t room, const float *A, int64_t n_units, float *AT) {
    for (int64_t panel = 0; panel < shape.n_panels; panel++)
        for (int64_t unit = 0; unit < n_units; unit += LANES)
            for (int v = 0; v < width_of(shape, panel); v++)
                transpose_square(A + (panel * n_units + unit) * PANEL + v * LANES, n_units - unit,
                                 AT + (unit / PANEL * room + panel * PANEL + v * LANES) * PANEL +
                                     unit % PANEL,
                                 LANES);
}

/* A of A^T, of the data. */
static void transpose_back(Shape shape, int64_t room, const float *AT, int64_t n_units, float *A) {
    for (int64_t panel = 0; panel < shape.n_panels; panel++)
        for (int64_t unit = 0; unit < n_units; unit += LANES)
            for (int v = 0; v < width_of(shape, panel); v++)
                transpose_square(
                    AT + (unit / PANEL * room + panel * PANEL + v * LANES) * PANEL + unit % PANEL,
                    LANES, A + (panel * n_units + unit) * PANEL + v * LANES, n_units - unit);
}

/* Of 16 lanes that lie in N_PARTS vectors, the part that a vector of a panel belongs to. */
#define N_PARTS (SUM_LANES / LANES)
INLINE int part_of(int64_t panel, int v) {
    return N_PARTS <= 2 ? v % N_PARTS : (int)(panel % 2) * 2 + v;
}

/* The sum of a row of D, as far as vectors can be added: LANES numbers. */
INLINE Floats sum_row(Shape shape, const float *D, int64_t n_units) {
    Floats parts[N_PARTS] = {{0}};
    for (int64_t panel = 0; panel < shape.n_panels; panel++, D += n_units * PANEL) {
        parts[part_of(panel, 0)] += load(D);
        if (width_of(shape, panel) == 2) parts[part_of(panel, 1)] += load(D + LANES);
    }
    for (int half = N_PARTS / 2; half; half /= 2)
        for (int i = 0; i < half; i++) parts[i] += parts[i + half];
    return parts[0];
}

/* dL/db = the sum of D over its columns; of LANES rows at once, by transposing what is left. */
static void sum_columns(Shape shape, const float *D, int64_t n_units, float *G) {
    for (int64_t unit = 0; unit < n_units; unit += LANES) {
        Floats sums[LANES];
        for (int u = 0; u < LANES; u++)
            sums[u] =
                u < n_units - unit ? sum_row(shape, D + (unit + u) * PANEL, n_units) : fill(0);
        turn(sums);
#pragma GCC unroll 4
        for (int half = LANES / 2; half; half /= 2)
#pragma GCC unroll 8
            for (int i = 0; i < half; i++) sums[i] += sums[i + half];
        store(G + unit, sums[0]);
    }
}

/* ----------------------------------------------------------------------------- the way forward */

/* Z_l = W_l A_{l-1} + b_l */
static void compute_scores(Shape shape, const Layer *layer, const float *W, const float *A_below) {
    int64_t n_units = layer->n_units, n_inputs = layer->n_inputs, step = rows_at_once(n_inputs);
    for (int64_t unit = 0; unit < n_units; unit += step)
        for (int64_t panel = 0; panel < shape.n_panels; panel++)
            multiply_forward(
                width_of(shape, panel), least(step, n_units - unit),
                W + layer->at + unit * layer->row, layer->row, W + layer->at_bias + unit, n_inputs,
                A_below + panel * n_inputs * PANEL, layer->A + (panel * n_units + unit) * PANEL);
}

/* M_l of some rows and a unit, `draw_mask` of the Python package's module `noise` */
INLINE Floats draw_mask(const Layer *layer, const int32_t *row_bits, int32_t unit_bits) {
    Words bits = (Words)load((const float *)row_bits) ^ (uint32_t)unit_bits;
    bits *= 0x7FEB352Du;
    bits ^= (Words)((Ints)bits >> 15);
    bits *= 0x846CA68Bu;
    return choose((Ints)bits >= layer->threshold, fill(layer->scale), fill(0));
}

/* Note in which rows a number is not finite: x - x is NaN there, else 0, and so are its bits. */
INLINE void note_overflow(Floats x, Ints *noted) { *noted |= (Ints)(x - x); }

/* A_l = f(Z_l) * M_l and S_l = f'(Z_l) * M_l; of one panel, rows that overflow can be noted. */
INLINE void activate_layer_by(Activation f, Shape shape, const Layer *layer,
                              const int32_t *row_bits, Ints *noted) {
    for (int64_t panel = 0; panel < shape.n_panels; panel++)
        for (int v = 0; v < width_of(shape, panel); v++) {
            Ints overflown = {0};
            for (int64_t unit = 0; unit < layer->n_units; unit++) {
                int64_t at = (panel * layer->n_units + unit) * PANEL + v * LANES;
                Floats slope, z = load(layer->A + at), a = activate(f, z, &slope);
                if (noted) note_overflow(z, &overflown);
                if (layer->unit_bits) {
                    Floats mask = draw_mask(layer, row_bits + panel * PANEL + v * LANES,
                                            layer->unit_bits[unit]);
                    a *= mask, slope *= mask;
                }
                store(layer->A + at, a);
                if (layer->S) store(layer->S + at, slope);
            }
            if (noted) noted[v] |= overflown;
        }
}

static void activate_layer(Activation f, Shape shape, const Layer *layer, const int32_t *row_bits,
                           Ints *noted) {
#define CASE(which) \
    case which: activate_layer_by(which, shape, layer, row_bits, noted); break;
    switch (f) {
        CASE(RELU)
        CASE(TANH)
        CASE(LOGISTIC)
        CASE(LEAKY_RELU)
        CASE(ELU)
        CASE(SELU)
        CASE(GELU)
        CASE(SILU)
    default: activate_layer_by(IDENTITY, shape, layer, row_bits, noted);
    }
#undef CASE
}

static void go_forward(const Training *t, Shape shape) {
    int64_t L = t->network->n_layers;
    for (int64_t l = 1; l <= L; l++) {
        const Layer *layer = t->layers + l;
        compute_scores(shape, layer, t->W, t->layers[l - 1].A);
        if (l == L) continue;
        activate_layer(t->network->activation, shape, layer, t->row_bits, NULL);
        transpose(shape, t->room, layer->A, layer->n_units, layer->AT);
    }
}

/* ----------------------------------------------------------------------------- the output layer

   Here is all that knows that the outputs are a softmax, of which one class is right, or sigmoids,
   of which each is: the loss of a training and its derivative, in float32, and what predictions
   and evaluations compute of the scores, in float64. */

/* Z <- (P - T) * r, of a panel, and the rows' losses - r log P_y. */
static void derive_loss(int width, float *Z, int64_t n_classes, const int64_t *labels,
                        const float *r, float *row_losses) {
    for (int i = 0; i < width * LANES; i++) row_losses[i] = Z[labels[i] * PANEL + i];
    for (int v = 0; v < width * LANES; v += LANES) {
        Floats top = load(Z + v), sum = {0}, weight = load(r + v);
        for (int64_t c = 1; c < n_classes; c++) {
            Floats z = load(Z + c * PANEL + v);
            top = choose(z > top, z, top);
        }
        for (int64_t c = 0; c < n_classes; c++) {
            Floats e = exponential(load(Z + c * PANEL + v) - top);
            store(Z + c * PANEL + v, e);
            sum += e;
        }
        Floats share = weight / sum;
        for (int64_t c = 0; c < n_classes; c++)
            store(Z + c * PANEL + v, load(Z + c * PANEL + v) * share);
        Floats loss = weight * (logarithm(sum) + (top - load(row_losses + v)));
        /* 0 times infinity is no loss. */
        store(row_losses + v, choose(weight > 0, loss, fill(0)));
    }
    for (int i = 0; i < width * LANES; i++) Z[labels[i] * PANEL + i] -= r[i];
}

/* The same with the sigmoid: the rows' losses are - r (T log P + (1 - T) log(1 - P)), summed up
   over the labels: of each log(1 + e^-|z|) + max(z, 0) - T z. */
static void derive_label_losses(int width, float *Z, int64_t n_labels, const float *T,
                                const float *r, float *row_losses) {
    for (int v = 0; v < width * LANES; v += LANES) {
        Floats sum = {0}, weight = load(r + v), zero = {0}, one = fill(1);
        for (int64_t c = 0; c < n_labels; c++) {
            Floats z = load(Z + c * PANEL + v), target = load(T + c * PANEL + v);
            Floats e = exponential(-(Floats)((Words)z & 0x7FFFFFFFu));
            Floats p = choose(z < 0, e, one) / (one + e);
            store(Z + c * PANEL + v, (p - target) * weight);
            sum += logarithm(one + e) + (choose(z < 0, zero, z) - target * z);
        }
        store(row_losses + v, choose(weight > 0, weight * sum, zero));
    }
}

/* Logarithms of the softmax of a panel of scores, or the softmax itself, in float64.

   With the largest score z_m and s the sum over the others of exp(z_c - z_m), that of class c is
   z_c - z_m - log(1 + s): where one class is nearly certain its logarithm has all its digits. */
static void normalise(int width, const float *Z, int64_t n_classes, Form form, double *P) {
    for (int v = 0; v < width * LANES; v += HALF) {
        Doubles top = widen(Z + v), others = {0};
        Longs is_found = {0};
        for (int64_t c = 1; c < n_classes; c++) {
            Doubles z = widen(Z + c * PANEL + v);
            top = choose_doubles(z > top, z, top);
        }
        for (int64_t c = 0; c < n_classes; c++) {
            Doubles z = widen(Z + c * PANEL + v) - top, e = exponential_doubles(z);
            Longs is_top = (z == 0) & ~is_found;
            others += choose_doubles(is_top, fill_doubles(0), e);
            is_found |= is_top;
            *(StoredDoubles *)(P + c * PANEL + v) = form == PROBA ? e : z;
        }
        Doubles log_sum = logarithm_plus_one(others);
        for (int64_t c = 0; c < n_classes; c++) {
            StoredDoubles *p = (StoredDoubles *)(P + c * PANEL + v);
            *p = form == PROBA ? *p / (1 + others) : *p - log_sum;
        }
    }
}

/* Logarithms of the sigmoid of a panel of scores, min(z, 0) - log(1 + e^-|z|), or the sigmoid. */
static void normalise_each(int width, const float *Z, int64_t n_labels, Form form, double *P) {
    for (int v = 0; v < width * LANES; v += HALF)
        for (int64_t c = 0; c < n_labels; c++) {
            Doubles z = widen(Z + c * PANEL + v), zero = {0}, one = fill_doubles(1);
            Doubles e = exponential_doubles(-(Doubles)((LongWords)z & 0x7FFFFFFFFFFFFFFFu));
            *(StoredDoubles *)(P + c * PANEL + v) =
                form == PROBA ? choose_doubles(z < 0, e, one) / (one + e)
                              : choose_doubles(z < 0, z, zero) - logarithm_plus_one(e);
        }
}

/* What a form asks for of a panel of scores. */
static void transform(Output output, int width, const float *Z, int64_t n, Form form, double *P) {
    if (form != SCORES) {
        if (output == SIGMOID) normalise_each(width, Z, n, form, P);
        else normalise(width, Z, n, form, P);
        return;
    }
    for (int v = 0; v < width * LANES; v += HALF)
        for (int64_t c = 0; c < n; c++)
            *(StoredDoubles *)(P + c * PANEL + v) = widen(Z + c * PANEL + v);
}

/* Whether the score of class y is the first of the largest, of row i of a panel. */
INLINE bool is_first_of_largest(const float *Z, int64_t n_classes, int64_t y, int64_t i) {
    bool is_it = true;
    for (int64_t c = 0; c < n_classes; c++)
        is_it &=
            c < y ? Z[c * PANEL + i] < Z[y * PANEL + i] : Z[c * PANEL + i] <= Z[y * PANEL + i];
    return is_it;
}

/* Z <- -Z where T is 0, so that the sigmoid is the probability of what is right; of n_rows rows,
   whose T lie one after another. */
static void turn_to_targets(float *Z, const float *T, int64_t n_rows, int64_t n_labels) {
    for (int64_t i = 0; i < n_rows; i++)
        for (int64_t c = 0; c < n_labels; c++)
            if (T[i * n_labels + c] == 0) Z[c * PANEL + i] = -Z[c * PANEL + i];
}

/* D_L = (P - T) * r; returns the loss. */
static float go_back_to_scores(const Training *t, Shape shape) {
    const Layer *last = t->layers + t->network->n_layers;
    Floats parts[N_PARTS] = {{0}};
    for (int64_t panel = 0; panel < shape.n_panels; panel++) {
        int64_t n = last->n_units, at = panel * n * PANEL;
        float *Z = last->A + at, *r = t->r + panel * PANEL;
        float *row_losses = t->row_losses + panel * PANEL;
        if (t->network->output == SIGMOID)
            derive_label_losses(width_of(shape, panel), Z, n, t->T + at, r, row_losses);
        else
            derive_loss(width_of(shape, panel), Z, n, t->labels + panel * PANEL, r, row_losses);
        for (int v = 0; v < width_of(shape, panel); v++)
            parts[part_of(panel, v)] += load(row_losses + v * LANES);
    }
    return sum_lanes(parts);
}

/* -------------------------------------------------------------------------------- the way back */

/* dL/dW_l = D_l A_{l-1}^T, and dL/db_l */
static void compute_gradient(const Training *t, Shape shape, const Layer *layer) {
    int64_t n_units = layer->n_units, n_inputs = layer->n_inputs;
    int64_t step = rows_at_once(shape.n_rows);
    for (int64_t unit = 0; unit < n_units; unit += step)
        for (int64_t input = 0; input < n_inputs; input += PANEL)
            multiply_gradient(n_inputs - input > LANES ? 2 : 1, least(step, n_units - unit), shape,
                              layer->A + unit * PANEL, n_units, layer[-1].AT + input * t->room,
                              t->G + layer->at + unit * layer->row + input, layer->row);
    sum_columns(shape, layer->A, n_units, t->G + layer->at_bias);
}

/* D_{l-1} = (W_l^T D_l) * S_{l-1} */
static void go_back_through(const Training *t, Shape shape, const Layer *layer) {
    int64_t n_units = layer->n_units, n_inputs = layer->n_inputs, step = rows_at_once(n_units);
    const Layer *below = layer - 1;
    for (int64_t input = 0; input < n_inputs; input += step)
        for (int64_t panel = 0; panel < shape.n_panels; panel++) {
            int64_t at = (panel * n_inputs + input) * PANEL;
            multiply_backward(width_of(shape, panel), least(step, n_inputs - input),
                              t->W + layer->at + input, layer->row, n_units,
                              layer->A + panel * n_units * PANEL, below->S + at, below->A + at);
        }
}

static void go_back(const Training *t, Shape shape) {
    for (int64_t l = t->network->n_layers; l >= 1; l--) {
        compute_gradient(t, shape, t->layers + l);
        if (l > 1) go_back_through(t, shape, t->layers + l);
    }
}

/* --------------------------------------------------------------- from gradients to new weights

   As torch.nn.utils.clip_grad_norm_ and torch.optim compute them, number by number:

       clipping   G <- G min(1, c / (|G| + 1e-6))     |G|: Euclidean norm of the whole gradient
       SGD        G <- G + d W;  U <- m U + G;  W <- W - lr U     (Nesterov: W <- W - lr (G + m U))
       Adam       G <- G + d W, then the rest of AdamW
       AdamW      W <- (1 - lr d) W
                  M <- b1 M + (1 - b1) G;  V <- b2 V + (1 - b2) G^2
                  W <- W - lr / (1 - b1^t) M / (sqrt(V / (1 - b2^t)) + eps)

   t counts the steps. The last line is W - s M / (sqrt(V) + e), where s = lr sqrt(1 - b2^t) /
   (1 - b1^t) and e = eps sqrt(1 - b2^t). */

static void clip_gradient(float *G, int64_t n, double max_norm) {
    Floats parts[N_PARTS] = {{0}};
    for (int64_t i = 0; i < n; i += SUM_LANES)
        for (int part = 0; part < N_PARTS; part++) {
            Floats g = load(G + i + part * LANES);
            parts[part] = fused(g, g, parts[part]);
        }
    float factor = (float)max_norm / (__builtin_sqrtf(sum_lanes(parts)) + 1e-6f);
    if (factor >= 1) return;
    for (int64_t i = 0; i < n; i += LANES) store(G + i, load(G + i) * factor);
}

INLINE void step_by_sgd(bool momentum, bool nesterov, const Training *t, double lr) {
    Floats d = fill((float)t->settings->weight_decay), m = fill((float)t->settings->momentum);
    Floats minus_lr = fill(-(float)lr);
    float *W = t->W, *G = t->G, *U = t->memory[0];
    for (int64_t i = 0; i < t->n_padded; i += LANES) {
        Floats w = load(W + i), g = fused(d, w, load(G + i));
        if (momentum) {
            Floats u = fused(m, load(U + i), g);
            store(U + i, u);
            g = nesterov ? fused(m, u, g) : u;
        }
        store(W + i, fused(minus_lr, g, w));
    }
}

static void step_by_adam(const Training *t, double lr) {
    const Settings *how = t->settings;
    bool decoupled = how->optimizer == ADAMW;
    double correction = __builtin_sqrt(1 - raise(how->beta2, t->n_steps));
    Floats minus_s = fill((float)(-lr * correction / (1 - raise(how->beta1, t->n_steps))));
    Floats e = fill((float)(how->eps * correction));
    Floats keep = fill((float)(decoupled ? 1 - lr * how->weight_decay : 1));
    Floats d = fill((float)(decoupled ? 0 : how->weight_decay));
    Floats rest1 = fill((float)(1 - how->beta1)), rest2 = fill((float)(1 - how->beta2));
    Floats b2 = fill((float)how->beta2);
    float *W = t->W, *G = t->G, *M = t->memory[0], *V = t->memory[1];
    for (int64_t i = 0; i < t->n_padded; i += LANES) {
        Floats w = load(W + i), g = fused(d, w, load(G + i)), m = load(M + i);
        m = fused(rest1, g - m, m);
        Floats v = fused(b2, load(V + i), rest2 * g * g);
        store(M + i, m);
        store(V + i, v);
        store(W + i, fused(minus_s, m / (root(v) + e), keep * w));
    }
}

static void step(Training *t, double lr) {
    const Settings *how = t->settings;
    t->n_steps++;
    if (how->max_norm < __builtin_inf()) clip_gradient(t->G, t->n_padded, how->max_norm);
    if (how->optimizer != SGD) step_by_adam(t, lr);
    else if (how->momentum == 0) step_by_sgd(false, false, t, lr);
    else if (how->nesterov) step_by_sgd(true, true, t, lr);
    else step_by_sgd(true, false, t, lr);
}

/* ------------------------------------------------------------------------------------ training */

/* Gather a batch. What is missing to whole vectors repeats its first row, without weight: it is
   finite where the batch is. */
static void take_batch(const Training *t, Shape shape, const int64_t *positions, int64_t seed) {
    const Data *data = t->data;
    const Layer *input = t->layers;
    int64_t n_padded = round_up(shape.n_rows, LANES);
    int64_t n_outputs = t->network->sizes[t->network->n_layers];
    float b = (float)shape.n_rows;
    for (int64_t i = 0; i < n_padded; i++) {
        bool is_there = i < shape.n_rows;
        int64_t row = positions[is_there ? i : 0];
        gather_row(&data->X, row, input->AT + i * PANEL, PANEL, t->room * PANEL);
        if (data->targets)
            for (int64_t c = 0; c < n_outputs; c++)
                t->T[(i / PANEL * n_outputs + c) * PANEL + i % PANEL] =
                    data->targets[row * n_outputs + c];
        else t->labels[i] = data->labels[row];
        t->r[i] = is_there ? (data->weights ? data->weights[row] : 1) / b : 0;
        if (data->row_keys) t->row_bits[i] = draw_bits(data->row_keys[row], seed);
    }
    transpose_back(shape, t->room, input->AT, input->n_units, input->A);
}

static float train_batch(Training *t, const int64_t *positions, int64_t n_rows, int64_t seed,
                         double lr) {
    Shape shape = make_shape(n_rows);
    take_batch(t, shape, positions, seed);
    go_forward(t, shape);
    float loss = go_back_to_scores(t, shape);
    go_back(t, shape);
    step(t, lr);
    return loss;
}

/* Returns whether the epoch came to its end. */
static bool train_epoch(Training *t, int64_t epoch, float *losses) {
    const Epochs *epochs = t->epochs;
    const int64_t *order = epochs->orders + epoch * epochs->n_rows;
    uint64_t seed = epochs->seeds ? (uint64_t)epochs->seeds[epoch] : 0;
    int64_t batch_size = least(t->settings->batch_size, epochs->n_rows);
    for (int64_t row = 0, batch = 0; row < epochs->n_rows; row += batch_size, batch++) {
        int64_t n_rows = least(batch_size, epochs->n_rows - row);
        losses[batch] =
            train_batch(t, order + row, n_rows, mix((int64_t)(seed + (uint64_t)batch)),
                        epochs->learning_rates[epoch]);
        if (!goes_on(t->watch, n_rows * t->n_padded, &t->since_asked)) return false;
    }
    return true;
}

static Status NAME(train)(Training *t, State *state, float *losses, int64_t *n_done) {
    int64_t batch_size = least(t->settings->batch_size, t->epochs->n_rows);
    int64_t n_batches = (t->epochs->n_rows + batch_size - 1) / batch_size;
    for (int64_t epoch = 0; epoch < t->epochs->n_epochs; epoch++, losses += n_batches) {
        if (!train_epoch(t, epoch, losses)) return INTERRUPTED;
        if (!are_finite(losses, n_batches) || !weights_are_finite(t)) return DIVERGED;
        store_state(t, state);
        ++*n_done;
    }
    return DONE;
}

/* ---------------------------------------------------------------------------------- prediction */

/* A_l, of a panel, from its parameters; A_0 is in p->A[0]. Returns where A_l is.

   A sum that is too large for float32 on its way can come out with the wrong sign, which f would
   hide: so all of A_l is NaN in the rows where some Z was not finite. */
static float *predict_layers(const Prediction *p, int width, int64_t last) {
    const float *W = p->parameters;
    const int64_t *sizes = p->network->sizes;
    Ints noted[2] = {{0}};
    Shape shape = make_shape(width * LANES);
    for (int64_t l = 1; l <= last; l++) {
        int64_t n_inputs = sizes[l - 1], n_units = sizes[l];
        Layer layer = {.n_inputs = n_inputs,
                       .n_units = n_units,
                       .row = n_inputs,
                       .at_bias = n_units * n_inputs,
                       .A = p->A[l % 2]};
        compute_scores(shape, &layer, W, p->A[(l - 1) % 2]);
        if (l < p->network->n_layers)
            activate_layer(p->network->activation, shape, &layer, NULL, noted);
        W += n_units * (n_inputs + 1);
    }
    float *A = p->A[last % 2];
    for (int v = 0; v < width; v++) {
        for (int64_t unit = 0; unit < sizes[last]; unit++)
            note_overflow(load(A + unit * PANEL + v * LANES), noted + v);
        for (int64_t unit = 0; unit < sizes[last]; unit++) {
            float *at = A + unit * PANEL + v * LANES;
            store(at, load(at) + (Floats)noted[v]);
        }
    }
    return A;
}

/* A_0 of at most PANEL rows, from `first` on. */
static int take_panel(const Prediction *p, const Rows *X, int64_t first) {
    Shape shape = make_shape(least(PANEL, X->n_rows - first));
    for (int64_t i = 0; i < shape.n_rows; i++)
        gather_row(X, first + i, p->staged + i * PANEL, PANEL, PANEL * PANEL);
    transpose_back(shape, PANEL, p->staged, X->n_features, p->A[0]);
    return width_of(shape, 0);
}

static void NAME(predict)(Prediction *p, const Rows *X, Form form, double *out) {
    int64_t n_outputs = p->network->sizes[p->network->n_layers];
    for (int64_t first = 0; first < X->n_rows; first += PANEL) {
        int width = take_panel(p, X, first);
        const float *Z = predict_layers(p, width, p->network->n_layers);
        transform(p->network->output, width, Z, n_outputs, form, p->P);
        int64_t n = least(PANEL, X->n_rows - first);
        for (int64_t i = 0; i < n; i++)
            for (int64_t c = 0; c < n_outputs; c++) *out++ = p->P[c * PANEL + i];
    }
}

static void NAME(compute_outputs)(Prediction *p, const Rows *X, int64_t layer, float *out) {
    int64_t n_units = p->network->sizes[layer];
    for (int64_t first = 0; first < X->n_rows; first += PANEL) {
        const float *A = predict_layers(p, take_panel(p, X, first), layer);
        int64_t n = least(PANEL, X->n_rows - first);
        for (int64_t i = 0; i < n; i++)
            for (int64_t unit = 0; unit < n_units; unit++) *out++ = A[unit * PANEL + i];
    }
}

static Status NAME(evaluate)(Prediction *p, const Data *data, const Watch *watch, double *sums) {
    const Rows *X = &data->X;
    int64_t since_asked = 0;
    int64_t n_outputs = p->network->sizes[p->network->n_layers];
    sums[0] = sums[1] = sums[2] = 0;
    for (int64_t first = 0; first < X->n_rows; first += PANEL) {
        int64_t n = least(PANEL, X->n_rows - first);
        int width = take_panel(p, X, first);
        float *Z = predict_layers(p, width, p->network->n_layers);
        const float *T = data->targets ? data->targets + first * n_outputs : NULL;
        if (T) turn_to_targets(Z, T, n, n_outputs);
        transform(p->network->output, width, Z, n_outputs, LOG_PROBA, p->P);
        for (int64_t i = 0; i < n; i++) {
            double weight = data->weights ? data->weights[first + i] : 1, log_likelihood = 0;
            bool is_right = true;
            if (T) {
                /* A score of 0 says, as a lower one, that a row does not have the label. */
                for (int64_t c = 0; c < n_outputs; c++) {
                    log_likelihood += p->P[c * PANEL + i];
                    is_right &= *T++ == 0 ? Z[c * PANEL + i] >= 0 : Z[c * PANEL + i] > 0;
                }
            } else {
                int64_t y = data->labels[first + i];
                log_likelihood = p->P[y * PANEL + i];
                is_right = is_first_of_largest(Z, n_outputs, y, i);
            }
            sums[0] -= weight * log_likelihood;
            sums[1] += weight;
            if (is_right) sums[2] += weight;
        }
        if (!goes_on(watch, n * p->n_parameters, &since_asked)) return INTERRUPTED;
    }
    return DONE;
}

#undef SUFFIX
#undef LANES
#undef HEIGHT
#undef FUSED
#undef FUSED_DOUBLES
#undef ROOT
#undef PANEL
#undef HALF
#undef N_PARTS
#undef EACH_FOUR
#undef EVEN_FOURS
#undef ODD_FOURS
#endif
