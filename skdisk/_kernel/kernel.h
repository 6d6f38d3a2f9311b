/* What kernel.c does for module.c. Nothing here knows Python, and nothing is checked: sizes,
   labels, orders and indices must be right, which module.c sees to. */
#ifndef SKDISK_KERNEL_H
#define SKDISK_KERNEL_H

#include <stdbool.h>
#include <stdint.h>

typedef enum { BASE, AVX2, AVX512, NEON, N_INSTRUCTION_SETS } InstructionSet;
typedef enum {
    RELU,
    TANH,
    LOGISTIC,
    IDENTITY,
    LEAKY_RELU,
    ELU,
    SELU,
    GELU,
    SILU,
    N_ACTIVATIONS
} Activation;
typedef enum { SOFTMAX, SIGMOID, N_OUTPUTS } Output;
typedef enum { SGD, ADAM, ADAMW, N_OPTIMIZERS } Optimizer;
typedef enum { LOG_PROBA, PROBA, SCORES, N_FORMS } Form;
typedef enum { DONE, DIVERGED, INTERRUPTED, NO_MEMORY } Status;

/* What a network is. Its parameters are one run of floats: for each layer the weights,
   (n_out, n_in) by rows, then the biases. What an optimiser remembers has the same layout. */
typedef struct {
    int64_t n_layers;     /* L */
    const int64_t *sizes; /* n_0 ... n_L: features, hidden units, classes or labels */
    Activation activation;
    Output output; /* of the scores: softmax, one of the classes is right, or a sigmoid of each */
} Network;

/* How it is trained, by the names of PyTorch. */
typedef struct {
    int64_t batch_size;
    Optimizer optimizer;
    bool nesterov;
    double momentum, weight_decay, beta1, beta2, eps, max_norm;
    const double *dropout; /* a probability for each hidden layer, or NULL */
} Settings;

/* Rows of features: of `singles`, or of `doubles`, or of CSR, whose values are in `singles`. */
typedef struct {
    int64_t n_rows, n_features;
    const float *singles;
    const double *doubles;
    const void *indices, *indptr;   /* NULL where the rows are dense */
    bool long_indices, long_indptr; /* int64 or int32 */
} Rows;

typedef struct {
    Rows X;
    const int64_t *labels;   /* of softmax: the class of each row, else NULL */
    const float *targets;    /* of sigmoid: (n_rows, n_L), 0 or 1, else NULL */
    const float *weights;    /* of the rows; NULL: 1 */
    const int64_t *row_keys; /* for dropout, else NULL */
} Data;

/* The epochs of one call. */
typedef struct {
    int64_t n_epochs, n_rows;
    const int64_t *orders;        /* (n_epochs, n_rows), positions of rows */
    const double *learning_rates; /* (n_epochs,) */
    const int64_t *seeds;         /* (n_epochs,), for dropout, else NULL */
} Epochs;

/* What training changes. */
typedef struct {
    float *parameters;
    float *memory[2]; /* of SGD: momentum_buffer; of Adam: exp_avg, exp_avg_sq; else NULL */
    int64_t n_steps;
} State;

/* Who calls is asked every few milliseconds whether to go on; false ends the call. */
typedef struct {
    bool (*goes_on)(void *caller);
    void *caller;
} Watch;

/* Whether this machine has an instruction set, and this build code for it. */
bool kernel_has(InstructionSet set);

/* Train; losses: (n_epochs, n_batches), n_done: how many epochs have changed the state. An epoch
   whose losses or weights are not finite, or that is interrupted, changes nothing but losses, and
   ends the call. */
Status kernel_train(InstructionSet set, const Network *network, const Settings *settings,
                    const Data *data, const Epochs *epochs, const Watch *watch, State *state,
                    float *losses, int64_t *n_done);

/* Sum up the rows' weighted negative log-likelihoods, the weights, and those of rows whose largest
   score is that of their class, or whose labels are all right: sums[0], sums[1], sums[2]. */
Status kernel_evaluate(InstructionSet set, const Network *network, const float *parameters,
                       const Data *data, const Watch *watch, double *sums);

/* Compute probabilities, their logarithms or the scores, in float64; out: (n_rows, n_L). */
Status kernel_predict(InstructionSet set, const Network *network, const float *parameters,
                      const Rows *X, Form form, double *out);

/* Compute what comes out of layer l; of the last one, the scores; out: (n_rows, n_l). */
Status kernel_compute_outputs(InstructionSet set, const Network *network, const float *parameters,
                              const Rows *X, int64_t layer, float *out);

#endif
