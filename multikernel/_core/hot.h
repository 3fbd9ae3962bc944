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

extern PyType_Spec mk_hot_send_spec, mk_hot_receive_spec;

#endif
