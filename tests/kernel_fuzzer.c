/* A target for libFuzzer: turns bytes into a call of everything that kernel.h offers, on every
   instruction set of this machine. `make fuzz-kernel` builds it with sanitizers and runs it.

   What the bytes say is always allowed by kernel.h: its promise is that then no memory beside the
   given arrays is touched, and that what comes out is as the functions `check_...` say. Each array
   is an allocation of its own, of its exact size, for the address sanitizer to watch. */
#include "kernel.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST_HIDDEN     4
#define MOST_PARAMETERS 100000
#define MOST_WORK       120000 /* parameters times rows */

/* Says what does not hold, and stops: libFuzzer keeps the bytes that led to it. */
#define CHECK(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "kernel_fuzzer.c:%d: %s does not hold\n", __LINE__, #condition); \
            abort(); \
        } \
    } while (0)

/* ----------------------------------------------------------------------- from bytes to numbers */

typedef struct {
    const uint8_t *at, *end;
    uint64_t state; /* of the generator that goes on where numbers are many */
} Source;

static uint8_t draw_byte(Source *from) { return from->at < from->end ? *from->at++ : 0; }

static uint64_t draw_word(Source *from) {
    uint64_t word = 0;
    for (int i = 0; i < 8; i++) word = word << 8 | draw_byte(from);
    return word;
}

static bool draw_truth(Source *from) { return draw_byte(from) & 1; }

static uint64_t generate(Source *from) {
    from->state ^= from->state << 13;
    from->state ^= from->state >> 7;
    return from->state ^= from->state << 17;
}

static int64_t below(uint64_t bits, int64_t end) { return (int64_t)(bits % (uint64_t)end); }

/* Mostly small; else where vectors, panels and blocks of products begin and end. */
static int64_t draw_size(Source *from) {
    static const int64_t edges[] = {15, 16, 17, 31,  32,  33,  47, 63,
                                    64, 65, 96, 127, 128, 129, 300};
    static const int64_t large[] = {513, 1025, 1100, 2100};
    uint8_t byte = draw_byte(from);
    if (byte < 160) return 1 + byte % 20;
    return byte < 240 ? edges[byte % 15] : large[byte % 4];
}

static double draw_special(Source *from) {
    static const double special[] = {0,        -0.0, 1,     -1,      1e20,   88,    -87,   1e-300,
                                     INFINITY, NAN,  1e-45, 1.2e-38, 3.4e38, -3e38, 1e300,
                                     -INFINITY};
    uint8_t byte = draw_byte(from);
    if (byte < 16) return special[byte];
    return (byte - 128) / 16.0;
}

/* A number from 0 to the largest float32, as module.c lets through. */
static double draw_not_negative(Source *from) {
    double x = fabs(draw_special(from));
    return x <= 3.4e38 ? x : 0.1;
}

static double draw_share(Source *from) {
    static const double shares[] = {0, 0.5, 0.9, 0.999, 0.9999999999999999, 1e-300, 0x1p-32, 0.1};
    return shares[draw_byte(from) % 8];
}

static void *allocate(int64_t n, size_t size) {
    void *memory = malloc((size_t)n * size);
    CHECK(memory || !n);
    return memory;
}

static void *copy(const void *from, int64_t n, size_t size) {
    void *to = allocate(n, size);
    if (n) memcpy(to, from, (size_t)n * size);
    return to;
}

/* Numbers of moderate size, of which a few may be anything. */
static float *draw_floats(Source *from, int64_t n, float scale) {
    float *x = allocate(n, sizeof *x);
    for (int64_t i = 0; i < n; i++)
        x[i] = scale * ((float)(generate(from) >> 40) / 8388608 - 1);
    for (int k = draw_byte(from) % 4; n && k; k--) {
        int64_t i = below(draw_word(from), n);
        x[i] = (float)draw_special(from);
    }
    return x;
}

/* From 0 to below an end, which is there at least once; without an end (0) anything. */
static int64_t *draw_integers(Source *from, int64_t n, int64_t end) {
    int64_t *x = allocate(n, sizeof *x);
    for (int64_t i = 0; i < n; i++)
        x[i] = end ? below(generate(from), end) : (int64_t)generate(from);
    if (n) x[below(draw_byte(from), n)] = end ? end - 1 : INT64_MAX;
    return x;
}

/* -------------------------------------------------------------------------- a case: all inputs */

typedef struct {
    int64_t sizes[MOST_HIDDEN + 2], n_parameters;
    double dropout[MOST_HIDDEN];
    float *parameters, *memory[2];
    int64_t n_steps, layer; /* the layer whose outputs are asked for */
    Network network;
    Settings settings;
    Data data;
    Epochs epochs;
    void *owned[20]; /* what the data and the epochs point to */
    int n_owned;
} Case;

static void *own(Case *c, void *memory) { return c->owned[c->n_owned++] = memory; }

static void draw_network(Source *from, Case *c) {
    int64_t n_layers = 1 + draw_byte(from) % (MOST_HIDDEN + 1);
    for (int64_t l = 0; l <= n_layers; l++) {
        int64_t size = draw_size(from), n_below = l ? c->sizes[l - 1] + 1 : 0;
        if (c->n_parameters + size * n_below > MOST_PARAMETERS) size = 1 + size % 7;
        c->sizes[l] = size;
        c->n_parameters += size * n_below;
    }
    c->network = (Network){n_layers, c->sizes, draw_byte(from) % N_ACTIVATIONS,
                           draw_byte(from) % N_OUTPUTS};
}

static void draw_settings(Source *from, Case *c) {
    Settings *how = &c->settings;
    how->batch_size = draw_byte(from) % 8 ? draw_size(from) : INT64_MAX;
    how->optimizer = draw_byte(from) % N_OPTIMIZERS;
    how->nesterov = draw_truth(from);
    how->momentum = draw_not_negative(from);
    how->weight_decay = draw_not_negative(from);
    how->beta1 = draw_share(from);
    how->beta2 = draw_share(from);
    how->eps = draw_not_negative(from);
    how->max_norm = draw_truth(from) ? INFINITY : draw_not_negative(from) + 1e-300;
    if (draw_truth(from)) {
        for (int l = 0; l < MOST_HIDDEN; l++) c->dropout[l] = draw_share(from);
        how->dropout = c->dropout;
    }
}

static void draw_csr(Source *from, Case *c, Rows *X) {
    bool is_long = draw_truth(from);
    int64_t most = 1 + draw_byte(from) % 9, n = 0;
    int64_t *indptr = own(c, allocate(X->n_rows + 1, sizeof *indptr));
    indptr[0] = n = draw_byte(from) % 3; /* values before the first row are nobody's */
    for (int64_t row = 0; row < X->n_rows; row++)
        indptr[row + 1] = n += below(generate(from), most);
    int64_t *indices = own(c, draw_integers(from, n, X->n_features));
    X->singles = own(c, draw_floats(from, n, 2));
    X->indices = indices, X->indptr = indptr, X->long_indices = X->long_indptr = true;
    if (is_long) return;
    int32_t *narrow = own(c, allocate(n, sizeof *narrow));
    for (int64_t i = 0; i < n; i++) narrow[i] = (int32_t)indices[i];
    X->indices = narrow, X->long_indices = false;
    if (draw_truth(from)) return;
    narrow = own(c, allocate(X->n_rows + 1, sizeof *narrow));
    for (int64_t i = 0; i <= X->n_rows; i++) narrow[i] = (int32_t)indptr[i];
    X->indptr = narrow, X->long_indptr = false;
}

static void draw_rows(Source *from, Case *c) {
    Rows *X = &c->data.X;
    X->n_features = c->sizes[0];
    X->n_rows = draw_size(from);
    if (X->n_rows > MOST_WORK / c->n_parameters) X->n_rows = MOST_WORK / c->n_parameters;
    int64_t n = X->n_rows * X->n_features;
    int kind = draw_byte(from) % 3;
    if (kind == 0) X->singles = own(c, draw_floats(from, n, 2));
    else if (kind == 1) {
        double *doubles = own(c, allocate(n, sizeof *doubles));
        for (int64_t i = 0; i < n; i++) doubles[i] = (double)(generate(from) >> 40) / 8388608 - 1;
        doubles[below(draw_word(from), n)] = draw_special(from);
        X->doubles = doubles;
    } else draw_csr(from, c, X);
}

static void draw_data(Source *from, Case *c) {
    Data *data = &c->data;
    draw_rows(from, c);
    int64_t n = data->X.n_rows, n_outputs = c->sizes[c->network.n_layers];
    if (c->network.output == SOFTMAX) data->labels = own(c, draw_integers(from, n, n_outputs));
    else {
        float *targets = own(c, allocate(n * n_outputs, sizeof *targets));
        for (int64_t i = 0; i < n * n_outputs; i++) targets[i] = generate(from) & 1;
        data->targets = targets;
    }
    if (draw_truth(from)) {
        float *weights = own(c, draw_floats(from, n, 3));
        for (int64_t i = 0; i < n; i++)
            weights[i] = fabsf(weights[i]) <= 3.4e38f ? fabsf(weights[i]) : 0;
        data->weights = weights;
    }
    if (c->settings.dropout || draw_truth(from))
        data->row_keys = own(c, draw_integers(from, n, 0));
}

static void draw_epochs(Source *from, Case *c) {
    Epochs *epochs = &c->epochs;
    epochs->n_rows = draw_truth(from) ? c->data.X.n_rows : draw_size(from);
    int64_t most = MOST_WORK / c->n_parameters;
    if (epochs->n_rows > most) epochs->n_rows = most;
    epochs->n_epochs = draw_byte(from) % 4;
    if (epochs->n_epochs * epochs->n_rows > most) epochs->n_epochs = 1;
    int64_t n = epochs->n_epochs;
    epochs->orders = own(c, draw_integers(from, n * epochs->n_rows, c->data.X.n_rows));
    double *rates = own(c, allocate(n, sizeof *rates));
    for (int64_t i = 0; i < n; i++) rates[i] = draw_not_negative(from) / 16;
    epochs->learning_rates = rates;
    if (c->settings.dropout || draw_truth(from))
        epochs->seeds = own(c, draw_integers(from, n, 0));
}

static void draw_case(Source *from, Case *c) {
    from->state = draw_byte(from) + 1;
    draw_network(from, c);
    draw_settings(from, c);
    draw_data(from, c);
    draw_epochs(from, c);
    c->parameters = own(c, draw_floats(from, c->n_parameters, 0.5f));
    int n_memories = c->settings.optimizer == SGD ? c->settings.momentum != 0 : 2;
    for (int i = 0; i < n_memories; i++)
        c->memory[i] = own(c, draw_floats(from, c->n_parameters, 0.1f));
    c->layer = 1 + draw_byte(from) % c->network.n_layers;
    c->n_steps = draw_truth(from) ? draw_byte(from) : INT64_MAX / 2;
}

/* ----------------------------------------------------------------------- what must come of it */

static bool are_equal(const float *a, const float *b, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (memcmp(a + i, b + i, sizeof *a) && !(isnan(a[i]) && isnan(b[i]))) return false;
    return true;
}

static bool are_finite(const float *x, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(x[i])) return false;
    return true;
}

typedef struct {
    State state;
    Status status;
    int64_t n_done, n_batches;
    float *losses;
} Result;

static void check_training(const Case *c, const Result *r) {
    int64_t n = c->n_parameters, n_epochs = c->epochs.n_epochs;
    CHECK(r->status == (r->n_done < n_epochs ? DIVERGED : DONE));
    CHECK(r->state.n_steps == c->n_steps + r->n_done * r->n_batches);
    CHECK(are_finite(r->losses, r->n_done * r->n_batches));
    if (r->n_done) CHECK(are_finite(r->state.parameters, n));
    else {
        CHECK(!memcmp(r->state.parameters, c->parameters, (size_t)n * sizeof(float)));
        for (int i = 0; i < 2; i++)
            if (c->memory[i])
                CHECK(!memcmp(r->state.memory[i], c->memory[i], (size_t)n * sizeof(float)));
    }
}

static bool go_on(void *caller) {
    (void)caller;
    return true;
}

static const Watch WATCH = {go_on, NULL};

static Result train(InstructionSet set, const Case *c) {
    int64_t n = c->n_parameters, n_rows = c->epochs.n_rows, batch_size = c->settings.batch_size;
    Result r = {.n_batches = (n_rows - 1) / batch_size + 1};
    r.state = (State){.parameters = copy(c->parameters, n, sizeof(float)), .n_steps = c->n_steps};
    for (int i = 0; i < 2; i++)
        if (c->memory[i]) r.state.memory[i] = copy(c->memory[i], n, sizeof(float));
    r.losses = allocate(c->epochs.n_epochs * r.n_batches, sizeof(float));
    r.status = kernel_train(set, &c->network, &c->settings, &c->data, &c->epochs, &WATCH,
                            &r.state, r.losses, &r.n_done);
    check_training(c, &r);
    return r;
}

static void check_equal(const Case *c, const Result *a, const Result *b) {
    CHECK(a->n_done == b->n_done && a->status == b->status);
    CHECK(are_equal(a->losses, b->losses, a->n_done * a->n_batches));
    CHECK(are_equal(a->state.parameters, b->state.parameters, c->n_parameters));
    for (int i = 0; i < 2; i++)
        if (c->memory[i])
            CHECK(are_equal(a->state.memory[i], b->state.memory[i], c->n_parameters));
}

static void free_result(Result *r) {
    free(r->state.parameters);
    for (int i = 0; i < 2; i++) free(r->state.memory[i]);
    free(r->losses);
}

/* A row of probabilities sums to 1, a row of labels' lies in 0 ... 1; their logarithms are not
   above 0. All are finite where the scores are. */
static void check_predictions(const Case *c, const double *log_proba, const double *proba,
                              const double *scores) {
    int64_t n_outputs = c->sizes[c->network.n_layers];
    for (int64_t row = 0; row < c->data.X.n_rows; row++) {
        double sum = 0;
        bool finite = true;
        for (int64_t i = row * n_outputs; i < (row + 1) * n_outputs; i++) {
            finite &= isfinite(scores[i]) != 0;
            sum += proba[i];
            CHECK(!finite || (log_proba[i] <= 0 && isfinite(log_proba[i])));
            CHECK(!finite || (proba[i] >= 0 && proba[i] <= 1));
        }
        for (int64_t i = row * n_outputs; i < (row + 1) * n_outputs; i++)
            CHECK(finite || isnan(scores[i]));
        if (finite && c->network.output == SOFTMAX) CHECK(fabs(sum - 1) < 1e-12);
    }
}

/* Returns the logarithms of the probabilities. */
static double *predict(InstructionSet set, const Case *c) {
    const Rows *X = &c->data.X;
    double *forms[N_FORMS];
    int64_t n = X->n_rows * c->sizes[c->network.n_layers];
    for (int form = 0; form < N_FORMS; form++) {
        forms[form] = allocate(n, sizeof(double));
        CHECK(kernel_predict(set, &c->network, c->parameters, X, form, forms[form]) == DONE);
    }
    check_predictions(c, forms[LOG_PROBA], forms[PROBA], forms[SCORES]);
    int64_t l = c->layer;
    float *out = allocate(X->n_rows * c->sizes[l], sizeof *out);
    CHECK(kernel_compute_outputs(set, &c->network, c->parameters, X, l, out) == DONE);
    for (int64_t i = 0; l == c->network.n_layers && i < n; i++)
        CHECK((float)forms[SCORES][i] == out[i] || isnan(out[i]));
    free(out);
    free(forms[PROBA]);
    free(forms[SCORES]);
    return forms[LOG_PROBA];
}

static void evaluate(InstructionSet set, const Case *c) {
    double sums[3], weight = 0;
    CHECK(kernel_evaluate(set, &c->network, c->parameters, &c->data, &WATCH, sums) == DONE);
    for (int64_t i = 0; i < c->data.X.n_rows; i++)
        weight += c->data.weights ? c->data.weights[i] : 1;
    CHECK(sums[1] == weight);
    CHECK(sums[2] >= 0 && sums[2] <= sums[1]);
    CHECK(sums[0] >= 0 || isnan(sums[0]));
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    Source source = {.at = bytes, .end = bytes + size};
    Case c = {0};
    draw_case(&source, &c);
    Result results[N_INSTRUCTION_SETS];
    double *log_proba[N_INSTRUCTION_SETS] = {NULL};
    for (int set = 0; set < N_INSTRUCTION_SETS; set++) {
        if (!kernel_has(set)) continue;
        results[set] = train(set, &c);
        log_proba[set] = predict(set, &c);
        evaluate(set, &c);
    }
    if (log_proba[AVX2] && log_proba[AVX512]) {
        int64_t n = c.data.X.n_rows * c.sizes[c.network.n_layers];
        check_equal(&c, results + AVX2, results + AVX512);
        for (int64_t i = 0; i < n; i++)
            CHECK(log_proba[AVX2][i] == log_proba[AVX512][i] || isnan(log_proba[AVX512][i]));
    }
    for (int set = 0; set < N_INSTRUCTION_SETS; set++) {
        if (!log_proba[set]) continue;
        free_result(results + set);
        free(log_proba[set]);
    }
    while (c.n_owned) free(c.owned[--c.n_owned]);
    return 0;
}
