/* The Python module around kernel.c: takes buffers and numbers, checks all of them, lets the
   kernel work without the GIL, and returns what it says. Whatever does not fit raises ValueError
   or TypeError, which name the argument, before anything is changed. NumPy is not needed here.

   The module's functions stand at the end. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <float.h>
#include <math.h>
#include <string.h>
#include <time.h>

#include "kernel.h"

#define MOST_LAYERS           1000000
#define SECONDS_BETWEEN_LOOKS 0.05

static const char *const INSTRUCTION_SETS[] = {"base", "avx2", "avx512", "neon"};
static const char *const ACTIVATIONS[] = {"relu", "tanh", "logistic", "identity", "leaky_relu",
                                          "elu",  "selu", "gelu",     "silu"};
static const char *const OUTPUTS[] = {"softmax", "sigmoid"};
static const char *const OPTIMIZERS[] = {"sgd", "adam", "adamw"};
static const char *const FORMS[] = {"log_proba", "proba", "scores"};

/* --------------------------------------------------------------------------- names and numbers */

/* Say in words what an object is not; want of memory stays what it is. */
static bool fail_conversion(const char *argument, PyObject *object, const char *expected) {
    bool is_too_large = false;
    if (PyErr_Occurred()) {
        if (PyErr_ExceptionMatches(PyExc_MemoryError)) return false;
        is_too_large = PyErr_ExceptionMatches(PyExc_OverflowError);
        PyErr_Clear();
    }
    if (is_too_large) PyErr_Format(PyExc_ValueError, "%s is too large a number.", argument);
    else
        PyErr_Format(PyExc_TypeError, "%s must be %s. Got %R instead.", argument, expected,
                     (PyObject *)Py_TYPE(object));
    return false;
}

/* Find a name; returns its place, or -1 and an exception. */
static int find_name(const char *argument, PyObject *name, const char *const *names, int n) {
    if (!PyUnicode_Check(name)) {
        fail_conversion(argument, name, "a string");
        return -1;
    }
    char all[160] = "";
    for (int i = 0; i < n; i++) {
        if (!PyUnicode_CompareWithASCIIString(name, names[i])) return i;
        strcat(strcat(all, i ? ", " : ""), names[i]);
    }
    PyErr_Format(PyExc_ValueError, "%s must be one of %s. Got '%.50U' instead.", argument, all,
                 name);
    return -1;
}

static bool find_instruction_set(PyObject *name, InstructionSet *set) {
    int found = find_name("instruction_set", name, INSTRUCTION_SETS, N_INSTRUCTION_SETS);
    if (found < 0) return false;
    *set = (InstructionSet)found;
    if (kernel_has(*set)) return true;
    PyErr_Format(PyExc_ValueError, "This machine does not have instruction_set '%U'.", name);
    return false;
}

static bool fail_number(const char *argument, double value, const char *expected) {
    char text[40];
    PyOS_snprintf(text, sizeof text, "%.9g", value);
    PyErr_Format(PyExc_ValueError, "%s must be %s. Got %s instead.", argument, expected, text);
    return false;
}

/* What has a length is no number: of an array of one item Python would take that item. */
static bool has_length(PyObject *object) {
    bool has = PyObject_Size(object) >= 0;
    PyErr_Clear();
    return has;
}

static bool read_real(const char *argument, PyObject *object, double *value) {
    if (!has_length(object)) {
        *value = PyFloat_AsDouble(object);
        if (!PyErr_Occurred()) return true;
    }
    return fail_conversion(argument, object, "a number");
}

static bool read_integer(const char *argument, PyObject *object, int64_t *value) {
    if (!has_length(object)) {
        *value = PyLong_AsLongLong(object);
        if (!PyErr_Occurred()) return true;
    }
    return fail_conversion(argument, object, "an integer");
}

static bool read_truth(const char *argument, PyObject *object, bool *value) {
    if (!has_length(object)) {
        *value = PyObject_IsTrue(object) == 1;
        if (!PyErr_Occurred()) return true;
    }
    return fail_conversion(argument, object, "true or false");
}

static bool check_not_negative(const char *argument, double value) {
    if (value >= 0 && value <= FLT_MAX) return true;
    return fail_number(argument, value, "a float32 of at least 0");
}

static bool check_share(const char *argument, double value) {
    if (value >= 0 && value < 1) return true;
    return fail_number(argument, value, "at least 0 and below 1");
}

/* -------------------------------------------------------------------------------------- arrays */

/* Types of items, to be combined. */
enum {
    INT32 = 1,
    INT64 = 2,
    FLOAT32 = 4,
    FLOAT64 = 8,
    INTS = INT32 | INT64,
    FLOATS = FLOAT32 | FLOAT64
};

static const char *describe_types(int types) {
    switch (types) {
    case INT64: return "int64";
    case INTS: return "int32 or int64";
    case FLOAT32: return "float32";
    case FLOAT64: return "float64";
    default: return "float32 or float64";
    }
}

typedef struct {
    const char *name;
    Py_buffer view;
    int type;
    bool is_written;
} Array;

/* The arrays of a call, held until it returns. */
typedef struct {
    Array items[16];
    int n;
} Arrays;

static void release(Arrays *arrays) {
    while (arrays->n) PyBuffer_Release(&arrays->items[--arrays->n].view);
}

static int find_type(const Py_buffer *view) {
    const char *format = view->format;
    if (*format == '@' || *format == '=') format++;
    if (strlen(format) != 1) return 0;
    if (strchr("ilq", *format)) return view->itemsize == 4 ? INT32 : INT64;
    if (*format == 'f') return FLOAT32;
    return *format == 'd' ? FLOAT64 : 0;
}

static bool check_array(const Array *array, int types, int n_dimensions) {
    const Py_buffer *view = &array->view;
    if (!(array->type & types)) {
        PyErr_Format(PyExc_TypeError,
                     "%s must be an array of %s. Got items of format '%.20s' instead.",
                     array->name, describe_types(types), view->format);
    } else if (view->ndim != n_dimensions) {
        PyErr_Format(PyExc_ValueError, "%s must have %d dimensions. Got %d instead.", array->name,
                     n_dimensions, view->ndim);
    } else if (!PyBuffer_IsContiguous(view, 'C')) {
        PyErr_Format(PyExc_ValueError, "%s must be C-contiguous.", array->name);
    } else if (view->len && (uintptr_t)view->buf % (size_t)view->itemsize) {
        PyErr_Format(PyExc_ValueError, "%s must be aligned to its items.", array->name);
    } else if (array->is_written && view->readonly) {
        PyErr_Format(PyExc_ValueError, "%s must be writable.", array->name);
    } else {
        return true;
    }
    return false;
}

/* Hold an array; NULL and an exception where it does not fit. */
static const Array *hold(Arrays *arrays, PyObject *object, const char *name, int types,
                         int n_dimensions, bool is_written) {
    Array *array = arrays->items + arrays->n;
    array->name = name;
    array->is_written = is_written;
    if (PyObject_GetBuffer(object, &array->view, PyBUF_STRIDES | PyBUF_FORMAT)) {
        if (PyErr_ExceptionMatches(PyExc_MemoryError)) return NULL;
        PyErr_Clear();
        PyErr_Format(PyExc_TypeError, "%s must be an array of %s. Got %R instead.", name,
                     describe_types(types), (PyObject *)Py_TYPE(object));
        return NULL;
    }
    arrays->n++;
    array->type = find_type(&array->view);
    return check_array(array, types, n_dimensions) ? array : NULL;
}

/* Hold an array that must have a length. */
static void *hold_vector(Arrays *arrays, PyObject *object, const char *name, int type,
                         int64_t length, bool is_written) {
    const Array *array = hold(arrays, object, name, type, 1, is_written);
    if (!array) return NULL;
    if (array->view.shape[0] == length) return array->view.buf;
    PyErr_Format(PyExc_ValueError, "%s must have %lld items. Got %zd instead.", name,
                 (long long)length, array->view.shape[0]);
    return NULL;
}

/* Hold an array that must have a shape. */
static void *hold_matrix(Arrays *arrays, PyObject *object, const char *name, int type,
                         int64_t n_rows, int64_t n_columns, bool is_written) {
    const Array *array = hold(arrays, object, name, type, 2, is_written);
    if (!array) return NULL;
    const Py_ssize_t *shape = array->view.shape;
    if (shape[0] == n_rows && shape[1] == n_columns) return array->view.buf;
    PyErr_Format(PyExc_ValueError, "%s must have the shape (%lld, %lld). Got (%zd, %zd) instead.",
                 name, (long long)n_rows, (long long)n_columns, shape[0], shape[1]);
    return NULL;
}

/* What is written must not change what is read, or written elsewhere. */
static bool check_no_overlap(const Arrays *arrays) {
    for (int i = 0; i < arrays->n; i++)
        for (int j = 0; j < arrays->n; j++) {
            const Array *a = arrays->items + i, *b = arrays->items + j;
            uintptr_t a_start = (uintptr_t)a->view.buf, b_start = (uintptr_t)b->view.buf;
            if (i == j || !a->is_written || !a->view.len || !b->view.len) continue;
            if (a_start < b_start + (size_t)b->view.len &&
                b_start < a_start + (size_t)a->view.len) {
                PyErr_Format(PyExc_ValueError, "%s and %s must not share memory.", a->name,
                             b->name);
                return false;
            }
        }
    return true;
}

static int64_t item_at(const Array *array, int64_t i) {
    return array->type == INT64 ? ((const int64_t *)array->view.buf)[i]
                                : ((const int32_t *)array->view.buf)[i];
}

/* Check that all integers are at least 0 and below an end. */
static bool check_range(const Array *array, int64_t end) {
    int64_t n = array->view.len / array->view.itemsize;
    for (int64_t i = 0; i < n; i++)
        if (item_at(array, i) < 0 || item_at(array, i) >= end) {
            PyErr_Format(PyExc_ValueError,
                         "%s must be at least 0 and below %lld. Got %lld instead.", array->name,
                         (long long)end, (long long)item_at(array, i));
            return false;
        }
    return true;
}

static bool check_all_not_negative(const char *name, const double *values, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (!check_not_negative(name, values[i])) return false;
    return true;
}

/* ------------------------------------------------------------------------------------ networks */

/* What every call is given first. */
typedef struct {
    PyObject *instruction_set, *sizes, *activation, *output, *parameters;
} NetworkArguments;

typedef struct {
    InstructionSet set;
    Network network;
    int64_t n_parameters;
    float *parameters;
} CheckedNetwork;

static bool count_parameters(const Network *network, int64_t *n) {
    int64_t product;
    *n = 0;
    for (int64_t l = 0; l <= network->n_layers; l++) {
        if (network->sizes[l] < 1) {
            PyErr_Format(PyExc_ValueError, "layer_sizes must be at least 1. Got %lld instead.",
                         (long long)network->sizes[l]);
            return false;
        }
        if (l == 0) continue;
        if (network->sizes[l - 1] == INT64_MAX ||
            __builtin_mul_overflow(network->sizes[l], network->sizes[l - 1] + 1, &product) ||
            __builtin_add_overflow(*n, product, n)) {
            PyErr_SetString(PyExc_ValueError,
                            "layer_sizes are too large: parameters cannot be counted.");
            return false;
        }
    }
    return true;
}

static bool check_network(Arrays *arrays, const NetworkArguments *given, bool is_written,
                          CheckedNetwork *checked) {
    int activation = find_name("activation", given->activation, ACTIVATIONS, N_ACTIVATIONS);
    int output = find_name("output", given->output, OUTPUTS, N_OUTPUTS);
    if (activation < 0 || output < 0 ||
        !find_instruction_set(given->instruction_set, &checked->set))
        return false;
    const Array *sizes = hold(arrays, given->sizes, "layer_sizes", INT64, 1, false);
    if (!sizes) return false;
    int64_t n_layers = sizes->view.shape[0] - 1;
    if (n_layers < 1 || n_layers > MOST_LAYERS) {
        PyErr_Format(PyExc_ValueError, "layer_sizes must have 2 to %d items. Got %zd instead.",
                     MOST_LAYERS + 1, sizes->view.shape[0]);
        return false;
    }
    checked->network =
        (Network){n_layers, sizes->view.buf, (Activation)activation, (Output)output};
    if (!count_parameters(&checked->network, &checked->n_parameters)) return false;
    checked->parameters = hold_vector(arrays, given->parameters, "parameters", FLOAT32,
                                      checked->n_parameters, is_written);
    return checked->parameters;
}

/* ---------------------------------------------------------------------------------------- rows */

/* Dense rows are `values`, of two dimensions; CSR is `values`, `indices` and `indptr`. */
typedef struct {
    PyObject *values, *indices, *indptr;
} RowsArguments;

static bool check_csr(Arrays *arrays, const RowsArguments *given, Rows *rows) {
    const Array *values = hold(arrays, given->values, "X.data", FLOAT32, 1, false);
    if (!values) return false;
    const Array *indices = hold(arrays, given->indices, "X.indices", INTS, 1, false);
    if (!indices) return false;
    const Array *indptr = hold(arrays, given->indptr, "X.indptr", INTS, 1, false);
    if (!indptr) return false;
    int64_t n_values = values->view.shape[0], previous = 0;
    if (indices->view.shape[0] != n_values || indptr->view.shape[0] < 1) {
        PyErr_SetString(PyExc_ValueError,
                        "X.indices must be as long as X.data, and X.indptr must not be empty.");
        return false;
    }
    for (Py_ssize_t i = 0; i < indptr->view.shape[0]; i++) {
        int64_t end = item_at(indptr, i);
        if (end < previous || end > n_values) {
            PyErr_Format(PyExc_ValueError,
                         "X.indptr must ascend from at least 0 to at most %lld. Got %lld after "
                         "%lld instead.",
                         (long long)n_values, (long long)end, (long long)previous);
            return false;
        }
        previous = end;
    }
    rows->n_rows = indptr->view.shape[0] - 1;
    rows->singles = values->view.buf;
    rows->indices = indices->view.buf;
    rows->indptr = indptr->view.buf;
    rows->long_indices = indices->type == INT64;
    rows->long_indptr = indptr->type == INT64;
    return check_range(indices, rows->n_features);
}

static bool check_dense(Arrays *arrays, const RowsArguments *given, Rows *rows) {
    const Array *values = hold(arrays, given->values, "X", FLOATS, 2, false);
    if (!values) return false;
    if (values->view.shape[1] != rows->n_features) {
        PyErr_Format(PyExc_ValueError, "X must have %lld features. Got %zd instead.",
                     (long long)rows->n_features, values->view.shape[1]);
        return false;
    }
    rows->n_rows = values->view.shape[0];
    if (values->type == FLOAT32) rows->singles = values->view.buf;
    else rows->doubles = values->view.buf;
    return true;
}

static bool check_rows(Arrays *arrays, const RowsArguments *given, int64_t n_features,
                       Rows *rows) {
    *rows = (Rows){.n_features = n_features};
    if ((given->indices == Py_None) != (given->indptr == Py_None)) {
        PyErr_SetString(PyExc_ValueError, "X.indices and X.indptr must be given together.");
        return false;
    }
    return given->indptr == Py_None ? check_dense(arrays, given, rows)
                                    : check_csr(arrays, given, rows);
}

/* ---------------------------------------------------------------------------------------- data */

typedef struct {
    RowsArguments rows;
    PyObject *labels, *row_weights, *row_keys;
} DataArguments;

static bool check_weights(const float *weights, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (!(weights[i] >= 0 && weights[i] <= FLT_MAX))
            return fail_number("row_weights", weights[i], "finite and at least 0");
    return true;
}

/* Softmax has a class for each row, the sigmoid 0 or 1 for each row and label. */
static bool check_labels(Arrays *arrays, PyObject *given, const Network *network, Data *data) {
    int64_t n = data->X.n_rows, n_outputs = network->sizes[network->n_layers];
    if (network->output == SOFTMAX) {
        data->labels = hold_vector(arrays, given, "labels", INT64, n, false);
        return data->labels && check_range(arrays->items + arrays->n - 1, n_outputs);
    }
    data->targets = hold_matrix(arrays, given, "labels", FLOAT32, n, n_outputs, false);
    if (!data->targets) return false;
    for (int64_t i = 0; i < n * n_outputs; i++)
        if (data->targets[i] != 0 && data->targets[i] != 1)
            return fail_number("labels", data->targets[i], "0 or 1");
    return true;
}

static bool check_data(Arrays *arrays, const DataArguments *given, const Network *network,
                       Data *data) {
    *data = (Data){0};
    if (!check_rows(arrays, &given->rows, network->sizes[0], &data->X)) return false;
    int64_t n = data->X.n_rows;
    if (n < 1) {
        PyErr_SetString(PyExc_ValueError, "X must have at least 1 row.");
        return false;
    }
    if (!check_labels(arrays, given->labels, network, data)) return false;
    if (given->row_weights != Py_None) {
        data->weights = hold_vector(arrays, given->row_weights, "row_weights", FLOAT32, n, false);
        if (!data->weights || !check_weights(data->weights, n)) return false;
    }
    if (given->row_keys != Py_None) {
        data->row_keys = hold_vector(arrays, given->row_keys, "row_keys", INT64, n, false);
        if (!data->row_keys) return false;
    }
    return true;
}

/* ---------------------------------------------------------------------- settings of a training */

typedef struct {
    PyObject *batch_size, *optimizer, *momentum, *nesterov, *weight_decay, *beta1, *beta2, *eps,
        *max_norm;
} SettingsArguments;

static bool check_settings(const SettingsArguments *given, Settings *settings) {
    if (!read_integer("batch_size", given->batch_size, &settings->batch_size) ||
        !read_real("momentum", given->momentum, &settings->momentum) ||
        !read_truth("nesterov", given->nesterov, &settings->nesterov) ||
        !read_real("weight_decay", given->weight_decay, &settings->weight_decay) ||
        !read_real("beta1", given->beta1, &settings->beta1) ||
        !read_real("beta2", given->beta2, &settings->beta2) ||
        !read_real("eps", given->eps, &settings->eps) ||
        !read_real("max_norm", given->max_norm, &settings->max_norm))
        return false;
    int found = find_name("optimizer", given->optimizer, OPTIMIZERS, N_OPTIMIZERS);
    if (found < 0) return false;
    settings->optimizer = (Optimizer)found;
    if (settings->batch_size < 1)
        return fail_number("batch_size", (double)settings->batch_size, "at least 1");
    if (!(settings->max_norm > 0)) return fail_number("max_norm", settings->max_norm, "above 0");
    if (settings->max_norm > FLT_MAX) settings->max_norm = INFINITY;
    return check_not_negative("momentum", settings->momentum) &&
           check_not_negative("weight_decay", settings->weight_decay) &&
           check_not_negative("eps", settings->eps) && check_share("beta1", settings->beta1) &&
           check_share("beta2", settings->beta2);
}

static bool check_dropout(Arrays *arrays, PyObject *given, int64_t n_hidden, Settings *settings,
                          bool *is_used) {
    *is_used = false;
    if (given == Py_None) return true;
    settings->dropout = hold_vector(arrays, given, "dropout", FLOAT64, n_hidden, false);
    if (!settings->dropout) return false;
    for (int64_t l = 0; l < n_hidden; l++) {
        if (!check_share("dropout", settings->dropout[l])) return false;
        *is_used |= settings->dropout[l] > 0;
    }
    return true;
}

/* What the optimiser remembers must be there, and nothing else. */
static bool check_memory(Arrays *arrays, PyObject *const *given, const Settings *settings,
                         int64_t n_parameters, State *state) {
    static const char *const names[] = {"memory[0]", "memory[1]"};
    int needed = settings->optimizer != SGD ? 2 : settings->momentum != 0;
    for (int i = 0; i < 2; i++) {
        if ((given[i] == Py_None) == (i < needed)) {
            PyErr_Format(PyExc_ValueError, "%s must be %s with this optimizer.", names[i],
                         i < needed ? "given" : "None");
            return false;
        }
        if (i >= needed) continue;
        state->memory[i] = hold_vector(arrays, given[i], names[i], FLOAT32, n_parameters, true);
        if (!state->memory[i]) return false;
    }
    return true;
}

/* ---------------------------------------------------------------------------------- the epochs */

typedef struct {
    PyObject *orders, *learning_rates, *seeds;
} EpochsArguments;

static bool check_epochs(Arrays *arrays, const EpochsArguments *given, int64_t n_rows_of_X,
                         Epochs *epochs) {
    *epochs = (Epochs){0};
    const Array *orders = hold(arrays, given->orders, "orders", INT64, 2, false);
    if (!orders) return false;
    epochs->orders = orders->view.buf;
    epochs->n_epochs = orders->view.shape[0];
    epochs->n_rows = orders->view.shape[1];
    if (epochs->n_rows < 1) {
        PyErr_SetString(PyExc_ValueError, "orders must have at least 1 column.");
        return false;
    }
    if (!check_range(orders, n_rows_of_X)) return false;
    epochs->learning_rates = hold_vector(arrays, given->learning_rates, "learning_rates", FLOAT64,
                                         epochs->n_epochs, false);
    if (!epochs->learning_rates) return false;
    if (!check_all_not_negative("learning_rates", epochs->learning_rates, epochs->n_epochs))
        return false;
    if (given->seeds != Py_None) {
        epochs->seeds = hold_vector(arrays, given->seeds, "seeds", INT64, epochs->n_epochs, false);
        if (!epochs->seeds) return false;
    }
    return true;
}

/* Make room for the loss of every batch; it takes less than the orders of its rows. */
static PyObject *make_losses(const Epochs *epochs, int64_t batch_size) {
    int64_t n_batches = (epochs->n_rows - 1) / batch_size + 1;
    int64_t n_bytes = epochs->n_epochs * n_batches * (int64_t)sizeof(float);
    return PyByteArray_FromStringAndSize(NULL, (Py_ssize_t)n_bytes);
}

/* ------------------------------------------------------------------------------------- signals */

/* A call that has let go of the GIL. */
typedef struct {
    PyThreadState *thread;
    double looked_at; /* when it had the GIL last */
} Call;

static double read_clock(void) {
    struct timespec now;
    timespec_get(&now, TIME_UTC);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static Call leave_python(void) {
    Call call = {.looked_at = read_clock()};
    call.thread = PyEval_SaveThread();
    return call;
}

/* Let Python's handlers of signals run; returns false, and an exception, where one raises. */
static bool answer_signals(void *caller) {
    Call *call = caller;
    /* A clock that was set back is no reason to wait. */
    if (fabs(read_clock() - call->looked_at) < SECONDS_BETWEEN_LOOKS) return true;
    PyEval_RestoreThread(call->thread);
    bool goes_on = !PyErr_CheckSignals();
    *call = leave_python();
    return goes_on;
}

/* Say for what there was no memory. */
static PyObject *fail_memory(const CheckedNetwork *checked, int64_t n_rows) {
    return PyErr_Format(PyExc_MemoryError,
                        "Unable to allocate what a network of %lld parameters takes for %lld "
                        "rows.",
                        (long long)checked->n_parameters, (long long)n_rows);
}

/* ------------------------------------------------------------------------------- the functions */

static PyObject *finish(Arrays *arrays, PyObject *result) {
    release(arrays);
    return result;
}

static PyObject *get_instruction_sets(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
    PyObject *names = PyList_New(0);
    for (int set = 0; names && set < N_INSTRUCTION_SETS; set++) {
        if (!kernel_has((InstructionSet)set)) continue;
        PyObject *name = PyUnicode_FromString(INSTRUCTION_SETS[set]);
        if (!name || PyList_Append(names, name)) Py_CLEAR(names);
        Py_XDECREF(name);
    }
    return names;
}

static PyObject *train(PyObject *module, PyObject *args, PyObject *keywords) {
    static char *names[] = {
        "instruction_set", "layer_sizes", "activation",   "output",     "parameters",
        "memory0",         "memory1",     "n_steps",      "batch_size", "optimizer",
        "momentum",        "nesterov",    "weight_decay", "beta1",      "beta2",
        "eps",             "max_norm",    "dropout",      "values",     "indices",
        "indptr",          "labels",      "row_weights",  "row_keys",   "orders",
        "learning_rates",  "seeds",       NULL};
    NetworkArguments network_given;
    DataArguments data_given;
    EpochsArguments epochs_given;
    SettingsArguments settings_given;
    PyObject *memory_given[2], *n_steps_given, *dropout_given;
    Settings settings = {0};
    State state = {0};
    (void)module;
    if (!PyArg_ParseTupleAndKeywords(
            args, keywords, "$OOOOOOOOOOOOOOOOOOOOOOOOOOO:train", names,
            &network_given.instruction_set, &network_given.sizes, &network_given.activation,
            &network_given.output,
            &network_given.parameters, &memory_given[0], &memory_given[1], &n_steps_given,
            &settings_given.batch_size, &settings_given.optimizer, &settings_given.momentum,
            &settings_given.nesterov, &settings_given.weight_decay, &settings_given.beta1,
            &settings_given.beta2, &settings_given.eps, &settings_given.max_norm, &dropout_given,
            &data_given.rows.values, &data_given.rows.indices, &data_given.rows.indptr,
            &data_given.labels, &data_given.row_weights, &data_given.row_keys,
            &epochs_given.orders, &epochs_given.learning_rates, &epochs_given.seeds))
        return NULL;

    Arrays arrays = {.n = 0};
    CheckedNetwork checked;
    Data data;
    Epochs epochs;
    bool drops;
    if (!check_settings(&settings_given, &settings) ||
        !read_integer("n_steps", n_steps_given, &state.n_steps) ||
        !check_network(&arrays, &network_given, true, &checked) ||
        !check_dropout(&arrays, dropout_given, checked.network.n_layers - 1, &settings, &drops) ||
        !check_memory(&arrays, memory_given, &settings, checked.n_parameters, &state) ||
        !check_data(&arrays, &data_given, &checked.network, &data) ||
        !check_epochs(&arrays, &epochs_given, data.X.n_rows, &epochs) ||
        !check_no_overlap(&arrays))
        return finish(&arrays, NULL);
    if (state.n_steps < 0 || state.n_steps > INT64_MAX / 2) {
        fail_number("n_steps", (double)state.n_steps, "at least 0 and a count");
        return finish(&arrays, NULL);
    }
    if (drops && !(data.row_keys && epochs.seeds)) {
        PyErr_SetString(PyExc_ValueError,
                        "dropout must have row_keys and seeds. Got None instead.");
        return finish(&arrays, NULL);
    }

    PyObject *losses = make_losses(&epochs, settings.batch_size);
    if (!losses) return finish(&arrays, NULL);
    float *room = (float *)(void *)PyByteArray_AsString(losses);
    state.parameters = checked.parameters;
    int64_t n_done;
    Call call = leave_python();
    const Watch watch = {answer_signals, &call};
    Status status = kernel_train(checked.set, &checked.network, &settings, &data, &epochs, &watch,
                                 &state, room, &n_done);
    PyEval_RestoreThread(call.thread);
    if (status == INTERRUPTED || status == NO_MEMORY) {
        Py_DECREF(losses);
        if (status == INTERRUPTED) return finish(&arrays, NULL);
        bool is_whole = settings.batch_size > epochs.n_rows;
        return finish(&arrays,
                      fail_memory(&checked, is_whole ? epochs.n_rows : settings.batch_size));
    }
    return finish(&arrays, Py_BuildValue("NLOL", losses, (long long)n_done,
                                         status == DIVERGED ? Py_True : Py_False,
                                         (long long)state.n_steps));
}

static PyObject *evaluate(PyObject *module, PyObject *args, PyObject *keywords) {
    static char *names[] = {"instruction_set", "layer_sizes", "activation", "output",
                            "parameters",      "values",      "indices",    "indptr",
                            "labels",          "row_weights", NULL};
    NetworkArguments network_given;
    DataArguments data_given = {.row_keys = Py_None};
    (void)module;
    if (!PyArg_ParseTupleAndKeywords(
            args, keywords, "$OOOOOOOOOO:evaluate", names, &network_given.instruction_set,
            &network_given.sizes, &network_given.activation, &network_given.output,
            &network_given.parameters,
            &data_given.rows.values, &data_given.rows.indices, &data_given.rows.indptr,
            &data_given.labels, &data_given.row_weights))
        return NULL;

    Arrays arrays = {.n = 0};
    CheckedNetwork checked;
    Data data;
    if (!check_network(&arrays, &network_given, false, &checked) ||
        !check_data(&arrays, &data_given, &checked.network, &data))
        return finish(&arrays, NULL);

    double sums[3];
    Call call = leave_python();
    const Watch watch = {answer_signals, &call};
    Status status =
        kernel_evaluate(checked.set, &checked.network, checked.parameters, &data, &watch, sums);
    PyEval_RestoreThread(call.thread);
    if (status == INTERRUPTED) return finish(&arrays, NULL);
    if (status == NO_MEMORY) {
        return finish(&arrays, fail_memory(&checked, data.X.n_rows));
    }
    if (!(sums[1] > 0)) {
        PyErr_SetString(PyExc_ValueError, "row_weights must not all be 0.");
        return finish(&arrays, NULL);
    }
    return finish(&arrays, Py_BuildValue("dd", sums[0] / sums[1], sums[2]));
}

static PyObject *predict(PyObject *module, PyObject *args, PyObject *keywords) {
    static char *names[] = {
        "instruction_set", "layer_sizes", "activation", "output", "parameters",
        "values",          "indices",     "indptr",     "form",   "out",        NULL};
    NetworkArguments network_given;
    RowsArguments rows_given;
    PyObject *form_given, *out_given;
    (void)module;
    if (!PyArg_ParseTupleAndKeywords(
            args, keywords, "$OOOOOOOOOO:predict", names, &network_given.instruction_set,
            &network_given.sizes, &network_given.activation, &network_given.output,
            &network_given.parameters,
            &rows_given.values, &rows_given.indices, &rows_given.indptr, &form_given, &out_given))
        return NULL;

    Arrays arrays = {.n = 0};
    CheckedNetwork checked;
    Rows X;
    double *out;
    int form = find_name("form", form_given, FORMS, N_FORMS);
    if (form < 0 || !check_network(&arrays, &network_given, false, &checked) ||
        !check_rows(&arrays, &rows_given, checked.network.sizes[0], &X) ||
        !(out = hold_matrix(&arrays, out_given, "out", FLOAT64, X.n_rows,
                            checked.network.sizes[checked.network.n_layers], true)) ||
        !check_no_overlap(&arrays))
        return finish(&arrays, NULL);

    Status status;
    Py_BEGIN_ALLOW_THREADS status =
        kernel_predict(checked.set, &checked.network, checked.parameters, &X, (Form)form, out);
    Py_END_ALLOW_THREADS if (status == NO_MEMORY)
        return finish(&arrays, fail_memory(&checked, X.n_rows));
    return finish(&arrays, Py_NewRef(Py_None));
}

static PyObject *compute_outputs(PyObject *module, PyObject *args, PyObject *keywords) {
    static char *names[] = {
        "instruction_set", "layer_sizes", "activation", "output", "parameters",
        "values",          "indices",     "indptr",     "layer",  "out",        NULL};
    NetworkArguments network_given;
    RowsArguments rows_given;
    int64_t layer;
    PyObject *layer_given, *out_given;
    (void)module;
    if (!PyArg_ParseTupleAndKeywords(
            args, keywords, "$OOOOOOOOOO:compute_outputs", names, &network_given.instruction_set,
            &network_given.sizes, &network_given.activation, &network_given.output,
            &network_given.parameters,
            &rows_given.values, &rows_given.indices, &rows_given.indptr, &layer_given, &out_given))
        return NULL;

    Arrays arrays = {.n = 0};
    CheckedNetwork checked;
    Rows X;
    float *out;
    if (!read_integer("layer", layer_given, &layer) ||
        !check_network(&arrays, &network_given, false, &checked) ||
        !check_rows(&arrays, &rows_given, checked.network.sizes[0], &X))
        return finish(&arrays, NULL);
    if (layer < 1 || layer > checked.network.n_layers) {
        PyErr_Format(PyExc_ValueError, "layer must be 1 to %lld. Got %lld instead.",
                     (long long)checked.network.n_layers, (long long)layer);
        return finish(&arrays, NULL);
    }
    out = hold_matrix(&arrays, out_given, "out", FLOAT32, X.n_rows, checked.network.sizes[layer],
                      true);
    if (!out || !check_no_overlap(&arrays)) return finish(&arrays, NULL);

    Status status;
    Py_BEGIN_ALLOW_THREADS status =
        kernel_compute_outputs(checked.set, &checked.network, checked.parameters, &X, layer, out);
    Py_END_ALLOW_THREADS if (status == NO_MEMORY)
        return finish(&arrays, fail_memory(&checked, X.n_rows));
    return finish(&arrays, Py_NewRef(Py_None));
}

#define WITH_KEYWORDS(function) \
    {#function, (PyCFunction)(void (*)(void))function, METH_VARARGS | METH_KEYWORDS, NULL}

static PyMethodDef FUNCTIONS[] = {
    {"get_instruction_sets", get_instruction_sets, METH_NOARGS, NULL},
    WITH_KEYWORDS(train),
    WITH_KEYWORDS(evaluate),
    WITH_KEYWORDS(predict),
    WITH_KEYWORDS(compute_outputs),
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot SLOTS[] = {
/* Nothing here is shared between calls. */
#ifdef Py_GIL_DISABLED
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL}};

static struct PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, .m_name = "_compiled",
                                    .m_methods = FUNCTIONS, .m_slots = SLOTS};

PyMODINIT_FUNC PyInit__compiled(void) { return PyModuleDef_Init(&MODULE); }
