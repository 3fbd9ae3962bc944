/* hot_objects.c: the base classes of Queue and of a Pipe's Connection.
 *
 * Small objects on a way that is open: pickled by a pickler that is kept, put, and so back. All else (what waits, what
 * is long, out-of-band buffers, places, every error) is for the methods with an underscore in front.
 */
#include "hot.h"

#include "hot_docs.h"

#include "multikernel/queue.h"

#define SMALL 4096u     /* as in shm/shared_queue.py and concurrent/objects.py */
#define PICKLE 0x80     /* the first byte of a record that is a pickle and nothing else */
#define PROTOCOL 5L     /* of pickles */
#define LONGEST (32 * 1024) /* bytes of a record that a pipe carries whole, as in concurrent/connection.py */
#define LOOK_NS 1000000 /* between two looks of a sender at whether the other end is there: each is a system call */

enum hot { MAKE, IN_PIECES, DUMPS, FROM_RECORD, LOADS };    /* of `HOT` in concurrent/objects.py */
enum encoder { ENCODER_DUMP, ENCODER_FORGET, ENCODER_PIECES, ENCODER_BUFFERS }; /* of an _Encoder */

struct objects {
	PyObject_HEAD PyObject *hot;                     /* NULL: not bound yet */
	PyObject *_Atomic idle;                          /* an encoder; NULL: a call uses it, or there is none */
	struct mk_queue *_Atomic put_to, *_Atomic take_from; /* NULL: not by calls in C */
	PyObject *send, *recv;                           /* of a Sender and a Receiver; NULL: not bound yet */
	_Atomic bool sends, receives;                    /* by calls in C */
	uint64_t look_at;                                /* when the next look is due */
};

static struct objects *objects_of(PyObject *self)
{
	return (struct objects *)self;
}

/* The call as it was made, by the method of that name. */
static PyObject *hand_on(PyObject *self, const char *name, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
	PyObject *method = PyObject_GetAttrString(self, name);
	PyObject *tuple = PyTuple_New(nargs), *named = PyDict_New(), *result = NULL;
	bool made = method && tuple && named;

	for (Py_ssize_t i = 0; made && i < nargs; i++)
		made = !PyTuple_SetItem(tuple, i, Py_NewRef(args[i]));
	for (Py_ssize_t i = 0; made && names && i < PyTuple_Size(names); i++)
		made = !PyDict_SetItem(named, PyTuple_GetItem(names, i), args[nargs + i]);
	if (made)
		result = PyObject_Call(method, tuple, named);
	Py_XDECREF(method);
	Py_XDECREF(tuple);
	Py_XDECREF(named);
	return result;
}

/* --- pickling ---------------------------------------------------------------------------------------------------- */

/* Holds nothing and is reduced by nobody: the short way is right for it. As _PLAIN in concurrent/objects.py. */
static bool plain(PyObject *value)
{
	return PyUnicode_CheckExact(value) || PyLong_CheckExact(value) || PyFloat_CheckExact(value) ||
	       PyBool_Check(value) || value == Py_None ||
	       (PyBytes_CheckExact(value) && PyBytes_Size(value) < (Py_ssize_t)SMALL);
}

/* What an encoder has made; it is left empty. @return the record, bytes or a list of pieces; NULL and an exception */
static PyObject *made_by(PyObject *hot, PyObject *encoder)
{
	PyObject *pieces = PyTuple_GetItem(encoder, ENCODER_PIECES);
	PyObject *record;

	if (mk_unlikely(PyList_Size(pieces) != 1 || PyList_Size(PyTuple_GetItem(encoder, ENCODER_BUFFERS))))
		return PyObject_CallFunctionObjArgs(PyTuple_GetItem(hot, IN_PIECES), encoder, NULL);
	record = Py_XNewRef(PyList_GetItem(pieces, 0));
	if (record && PyList_SetSlice(pieces, 0, 1, NULL))
		Py_CLEAR(record);
	return record;
}

/* `to_record` of concurrent/objects.py. */
static PyObject *to_record(struct objects *self, PyObject *value)
{
	PyObject *encoder, *done, *record = NULL;

	if (plain(value))
		return PyObject_CallFunction(PyTuple_GetItem(self->hot, DUMPS), "Ol", value, PROTOCOL);
	/* Taken out while it is used: another thread, or a __reduce__ that puts something itself, gets another one.
	 * Acquire, pairs with the release below. */
	encoder = atomic_exchange_explicit(&self->idle, NULL, memory_order_acq_rel);
	if (mk_unlikely(!encoder))
		encoder = PyObject_CallNoArgs(PyTuple_GetItem(self->hot, MAKE));
	if (!encoder)
		return NULL;
	done = PyObject_CallFunctionObjArgs(PyTuple_GetItem(encoder, ENCODER_DUMP), value, NULL);
	if (mk_likely(done)) {
		Py_DECREF(done);
		/* It would keep the objects alive, and refer to them in the next pickle. */
		done = PyObject_CallNoArgs(PyTuple_GetItem(encoder, ENCODER_FORGET));
	}
	if (mk_likely(done)) {
		Py_DECREF(done);
		record = made_by(self->hot, encoder);
	}
	if (mk_likely(record))
		encoder = atomic_exchange_explicit(&self->idle, encoder, memory_order_acq_rel);
	Py_XDECREF(encoder); /* after an exception it is not used again */
	return record;
}

static bool is_pickle(PyObject *record)
{
	return PyBytes_Size(record) > 0 && (unsigned char)PyBytes_AsString(record)[0] == PICKLE;
}

static PyObject *from_record(struct objects *self, PyObject *record)
{
	return PyObject_CallFunctionObjArgs(PyTuple_GetItem(self->hot, is_pickle(record) ? LOADS : FROM_RECORD), record,
					    NULL);
}

/* --- Queue ------------------------------------------------------------------------------------------------------- */

static PyObject *hot_put(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
	struct objects *objects = objects_of(self);
	PyObject *record, *result;
	struct mk_queue *queue;

	if (mk_unlikely(nargs != 1 || names || !mk_load_relaxed(&objects->put_to)))
		return hand_on(self, "_put", args, nargs, names);
	record = to_record(objects, args[0]);
	if (mk_unlikely(!record))
		return NULL;
	queue = mk_load_relaxed(&objects->put_to); /* again: what runs while it is pickled may have closed it */
	if (mk_likely(queue && PyBytes_CheckExact(record) && PyBytes_Size(record) <= (Py_ssize_t)MK_QUEUE_LONGEST &&
		      !mk_queue_put_one(queue, PyBytes_AsString(record), (uint64_t)PyBytes_Size(record))))
		result = mk_hot_nothing();
	else
		result = PyObject_CallMethod(self, "_put_record", "(O)", record);
	Py_DECREF(record);
	return result;
}

static PyObject *hot_get(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
	struct mk_queue *queue = mk_load_relaxed(&objects_of(self)->take_from);
	uint64_t memory[SMALL / sizeof(uint64_t)];
	struct mk_queue_taken taken = {0};
	PyObject *record, *result;
	int64_t length = 0;

	if (mk_likely(!nargs && !names && queue))
		length = mk_queue_try_take(queue, memory, SMALL, &taken);
	if (mk_unlikely(length == 0 && taken.large.length))
		return PyObject_CallMethod(self, "_get_outside", "KK", (unsigned long long)taken.large.offset,
					   (unsigned long long)taken.large.length);
	if (mk_unlikely(length <= 0))
		return hand_on(self, "_get", args, nargs, names);
	record = PyBytes_FromStringAndSize((const char *)memory, (Py_ssize_t)length);
	if (!record)
		return NULL;
	result = from_record(objects_of(self), record);
	Py_DECREF(record);
	return result;
}

static PyObject *queue_bind(PyObject *self, PyObject *args)
{
	struct objects *objects = objects_of(self);
	unsigned long long put_to, take_from;
	PyObject *hot;

	if (!PyArg_ParseTuple(args, "KKO", &put_to, &take_from, &hot))
		return NULL;
	if (!objects->hot)
		objects->hot = Py_NewRef(hot);
	mk_store_relaxed(&objects->put_to, (void *)(uintptr_t)put_to);
	mk_store_relaxed(&objects->take_from, (void *)(uintptr_t)take_from);
	return mk_hot_nothing();
}

/* --- Connection -------------------------------------------------------------------------------------------------- */

static PyObject *hot_send(PyObject *self, PyObject *value)
{
	struct objects *objects = objects_of(self);
	PyObject *record, *result;

	if (mk_unlikely(!mk_load_acquire(&objects->sends) || mk_now() >= objects->look_at)) {
		result = PyObject_CallMethod(self, "_send", "(O)", value);
		if (result)
			objects->look_at = mk_now() + LOOK_NS;
		return result;
	}
	record = to_record(objects, value);
	if (mk_unlikely(!record))
		return NULL;
	if (mk_likely(mk_load_relaxed(&objects->sends) && /* again: what runs while it is pickled may have closed it */
		      PyBytes_CheckExact(record) && PyBytes_Size(record) <= LONGEST))
		result = PyObject_CallFunctionObjArgs(objects->send, record, NULL);
	else
		result = PyObject_CallMethod(self, "_send_record", "(O)", record);
	Py_DECREF(record);
	return result;
}

static PyObject *hot_recv(PyObject *self, PyObject *Py_UNUSED(nothing))
{
	struct objects *objects = objects_of(self);
	PyObject *record, *result;

	if (mk_unlikely(!mk_load_acquire(&objects->receives)))
		return PyObject_CallMethod(self, "_recv", NULL);
	record = PyObject_CallNoArgs(objects->recv);
	if (mk_unlikely(!record)) {
		if (!PyErr_ExceptionMatches(PyExc_BrokenPipeError))
			return NULL;
		PyErr_Clear(); /* it comes again there, and is made what it means for a Connection */
		return PyObject_CallMethod(self, "_recv", NULL);
	}
	result = is_pickle(record) ? from_record(objects, record) : PyObject_CallMethod(self, "_recv", "(O)", record);
	Py_DECREF(record);
	return result;
}

/* Set once, and kept: another thread may be about to call it. */
static bool bind_call(PyObject **slot, PyObject *call)
{
	if (call != Py_None && !*slot)
		*slot = Py_NewRef(call);
	return call != Py_None;
}

static PyObject *connection_bind(PyObject *self, PyObject *args)
{
	struct objects *objects = objects_of(self);
	PyObject *send, *recv, *hot;

	if (!PyArg_ParseTuple(args, "OOO", &send, &recv, &hot))
		return NULL;
	bind_call(&objects->hot, hot);
	objects->look_at = 0;
	/* Release, pairs with the acquire loads in the calls: they see what is set above. */
	mk_store_release(&objects->sends, bind_call(&objects->send, send));
	mk_store_release(&objects->receives, bind_call(&objects->recv, recv));
	return mk_hot_nothing();
}

/* --- the types --------------------------------------------------------------------------------------------------- */

static void dealloc(PyObject *self)
{
	struct objects *objects = objects_of(self);
	PyTypeObject *type = Py_TYPE(self);
	freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);

	Py_XDECREF(objects->hot);
	Py_XDECREF(mk_load_relaxed(&objects->idle));
	Py_XDECREF(objects->send);
	Py_XDECREF(objects->recv);
	release(self);
	Py_DECREF(type);
}

static PyMethodDef queue_methods[] = {
	{"put", MK_HOT_FAST(hot_put), METH_FASTCALL | METH_KEYWORDS, DOC_QueueCalls_put},
	{"get", MK_HOT_FAST(hot_get), METH_FASTCALL | METH_KEYWORDS, DOC_QueueCalls_get},
	{"_bind", queue_bind, METH_VARARGS,
	 "_bind($self, put_to, take_from, hot)\n--\n\n"
	 "The queue lies at these addresses, 0: not for calls in C. hot: of concurrent/objects.py."},
	{NULL, NULL, 0, NULL},
};

static PyMethodDef connection_methods[] = {
	{"send", hot_send, METH_O, DOC_ConnectionCalls_send},
	{"recv", hot_recv, METH_NOARGS, DOC_ConnectionCalls_recv},
	{"_bind", connection_bind, METH_VARARGS,
	 "_bind($self, send, recv, hot)\n--\n\n"
	 "Of a Sender and a Receiver, None: not for calls in C. hot: of concurrent/objects.py."},
	{NULL, NULL, 0, NULL},
};

static PyType_Slot queue_slots[] = {{Py_tp_methods, queue_methods}, {Py_tp_dealloc, (void *)dealloc}, {0, NULL}};
static PyType_Slot connection_slots[] = {
	{Py_tp_methods, connection_methods}, {Py_tp_dealloc, (void *)dealloc}, {0, NULL}};

PyType_Spec mk_hot_queue_spec = {
	.name = "multikernel._core._hot.QueueCalls",
	.basicsize = sizeof(struct objects),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
	.slots = queue_slots,
};

PyType_Spec mk_hot_connection_spec = {
	.name = "multikernel._core._hot.ConnectionCalls",
	.basicsize = sizeof(struct objects),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
	.slots = connection_slots,
};
