/* hot_objects.h: what the calls of Queue and of a Pipe's Connection share. See hot_objects.c. */
#ifndef MULTIKERNEL_HOT_OBJECTS_H
#define MULTIKERNEL_HOT_OBJECTS_H

#include "hot.h"

#include "multikernel/queue.h"

#define MK_HOT_SMALL 4096u /* as in shm/shared_queue.py and concurrent/objects.py */

/* A Queue or a Connection as the calls see it. */
struct mk_hot_objects {
	PyObject_HEAD PyObject *hot;                         /* NULL: not bound yet */
	PyObject *_Atomic idle;                              /* an encoder; NULL: a call uses it, or there is none */
	struct mk_queue *_Atomic put_to, *_Atomic take_from; /* NULL: not by calls in C */
	PyObject *sender, *receiver;                         /* NULL: not bound yet */
	_Atomic bool sends, receives;                        /* by calls in C */
	uint64_t look_at;                                    /* when the next look is due */
};

static inline struct mk_hot_objects *mk_hot_objects_of(PyObject *self)
{
	return (struct mk_hot_objects *)self;
}

/* The call as it was made, by the method of that name. */
PyObject *mk_hot_hand_on(PyObject *self, const char *name, PyObject *const *args, Py_ssize_t nargs, PyObject *names);

/* `to_record` and `from_record` of concurrent/objects.py; a record that arrived is bytes. */
PyObject *mk_hot_to_record(struct mk_hot_objects *self, PyObject *value);
PyObject *mk_hot_from_record(struct mk_hot_objects *self, PyObject *record);

/* Whether it is a pickle and nothing else. */
bool mk_hot_is_pickle(PyObject *record);

void mk_hot_objects_dealloc(PyObject *self);

#endif
