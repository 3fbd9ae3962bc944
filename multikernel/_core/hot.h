/* hot.h: the calls of which a program makes millions, as a C extension. See hot.c. */
#ifndef MULTIKERNEL_HOT_H
#define MULTIKERNEL_HOT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "ends.h"

#define MK_HOT_RAISED 1 /* a result beside 0 and -errno: a Python exception is set */

/* The limited API has a borrowed reference only where it cannot go stale: in a tuple that is ours. */
#define mk_hot_nothing() Py_NewRef(Py_None)

/* A time-out as the core takes it.
 * @param argument  NULL or None: no limit
 * @return whether it is a number; if not the Python path says what is wrong with it */
int mk_hot_timeout(PyObject *argument, int64_t *deadline);

/* The arguments of a call `name(first, timeout=None)`, or with @first NULL `name(timeout=None)`.
 * @return 0; -1 and an exception */
int mk_hot_arguments(const char *name, PyObject *const *args, Py_ssize_t nargs, PyObject *names, const char *first_name,
		     PyObject **first, PyObject **timeout);

/* Wait until the end, which this call is in, can go on: a little with the interpreter's lock, then without.
 * @return 0: look again; -EAGAIN, -ETIMEDOUT, -EPIPE ...; MK_HOT_RAISED: a handler of a signal raised, and the end was
 * left; -EBUSY, -ECHILD: likewise left, since the handler has closed or lent it */
int mk_hot_wait(struct mk_end *end, int64_t deadline, bool *in);

/* Raise what a negative result means. @return NULL */
PyObject *mk_hot_fail(PyObject *self, int code, PyObject *timeout, uint64_t length);

#define MK_HOT_DIMENSIONS 8
#define MK_HOT_LONG (64u * 1024u) /* bytes: copying more lets the interpreter's lock go */

/* What a ring of elements carries. */
struct mk_hot_elements {
	PyObject *array_type, *dtype, *empty; /* numpy.ndarray, the dtype, numpy.empty */
	PyObject *dtype_name;                 /* "dtype", interned: making it takes longer than looking it up */
	uint64_t size;                        /* of one element, bytes */
	Py_ssize_t dimensions;                /* of one element */
	Py_ssize_t shape[MK_HOT_DIMENSIONS];
};

/* A Sender or a Receiver as the calls see it. */
struct mk_hot_end {
	PyObject_HEAD union {
		struct mk_sender *tx;
		struct mk_receiver *rx; /* NULL: not claimed yet, or closed */
	};
	struct mk_hot_elements *elements; /* NULL: records */
};

#define mk_hot_end_of(self) ((struct mk_hot_end *)(self))
#define MK_HOT_FAST(function) ((PyCFunction)(void (*)(void))(function))

#define MK_HOT_BIND_DOC                            \
	"_bind($self, address, *elements)\n--\n\n" \
	"The claimed end lies there, 0: nowhere. elements: numpy.ndarray, dtype, numpy.empty, shape and size of one."

/* The method `_bind(address, *elements)` and the destructor, of both types. */
PyObject *mk_hot_bind(PyObject *self, PyObject *arguments);
void mk_hot_dealloc(PyObject *self);

/* An array of such elements, as memory: contiguous, and @flags says whether writable.
 * @return whether it is one; if not the Python path says why, or converts nothing and does it */
bool mk_hot_array(const struct mk_hot_elements *elements, PyObject *array, int flags, Py_buffer *view);

/* send_many, recv_many and recv_into of elements. @return the result; NULL and *slow: for the Python path to do */
PyObject *mk_hot_send_elements(PyObject *self, PyObject *array, PyObject *timeout, int64_t deadline, bool at_once,
			       bool *slow);
PyObject *mk_hot_recv_elements(PyObject *self, Py_ssize_t limit, PyObject *timeout, int64_t deadline, bool at_once,
			       bool *slow);
PyObject *mk_hot_recv_elements_into(PyObject *self, PyObject *array, PyObject *timeout, int64_t deadline, bool *slow);

/* Sender.send(payload, timeout), timeout NULL: none. */
PyObject *mk_hot_send_record(PyObject *sender, PyObject *payload, PyObject *timeout);

/* The next record of a Receiver. @return NULL: *why, or 0 where an exception is set; -EINVAL: it cannot be used so */
PyObject *mk_hot_take_record(PyObject *receiver, int64_t deadline, int *why);

/* What `bind` was given. */
const struct mk_hot_core *mk_hot_core(void);

extern PyType_Spec mk_hot_send_spec, mk_hot_receive_spec, mk_hot_queue_spec, mk_hot_connection_spec;
extern PyType_Spec mk_hot_fan_spec, mk_hot_mailbox_spec, mk_hot_cast_spec; /* the second is derived from the first */

#endif
