/* hot_connection.c: the base class of a Pipe's Connection. See hot_objects.c. */
#include "hot_objects.h"

#include "hot_docs.h"

#define LONGEST (32 * 1024) /* bytes of a record that a pipe carries whole, as in concurrent/connection.py */
#define LOOK_NS 1000000     /* between two looks of a sender at whether the other end is there: each is a system call */

static PyObject *hot_send(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
	struct mk_hot_objects *objects = mk_hot_objects_of(self);
	PyObject *record, *result;

	if (mk_unlikely(nargs != 1 || names || !mk_load_acquire(&objects->sends) || mk_now() >= objects->look_at)) {
		result = mk_hot_hand_on(self, "_send", args, nargs, names);
		if (result)
			objects->look_at = mk_now() + LOOK_NS;
		return result;
	}
	record = mk_hot_to_record(objects, args[0]);
	if (mk_unlikely(!record))
		return NULL;
	if (mk_likely(mk_load_relaxed(&objects->sends) && /* again: what runs while it is pickled may have closed it */
		      PyBytes_CheckExact(record) && PyBytes_Size(record) <= LONGEST))
		result = mk_hot_send_record(objects->sender, record, NULL);
	else
		result = PyObject_CallMethod(self, "_send_record", "(O)", record);
	Py_DECREF(record);
	return result;
}

/* The argument of `recv(*, copy=True)`. @return 1: copy; 0: do not; -1 and an exception */
static int copies(PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
	if (nargs) {
		PyErr_Format(PyExc_TypeError, "recv() takes no positional arguments (%zd given)", nargs);
		return -1;
	}
	if (!names || !PyTuple_Size(names))
		return 1;
	if (PyTuple_Size(names) > 1 || PyUnicode_CompareWithASCIIString(PyTuple_GetItem(names, 0), "copy")) {
		PyErr_SetString(PyExc_TypeError, "recv() takes no keyword argument but 'copy'");
		return -1;
	}
	return PyObject_IsTrue(args[0]);
}

static PyObject *hot_recv(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
	struct mk_hot_objects *objects = mk_hot_objects_of(self);
	PyObject *record, *result;
	int why = copies(args, nargs, names);

	if (mk_unlikely(why <= 0))
		return why ? NULL : PyObject_CallMethod(self, "_recv_uncopied", NULL);
	if (mk_unlikely(!mk_load_acquire(&objects->receives)))
		return PyObject_CallMethod(self, "_recv", NULL);
	record = mk_hot_take_record(objects->receiver, -1, &why);
	if (mk_unlikely(!record)) /* what is wrong will be so there, too, and is made what it means for a Connection */
		return why ? PyObject_CallMethod(self, "_recv", NULL) : NULL;
	result = mk_hot_is_pickle(record) ? mk_hot_from_record(objects, record)
					  : PyObject_CallMethod(self, "_recv", "(O)", record);
	Py_DECREF(record);
	return result;
}

/* Set once, and kept: another thread may be about to use it. */
static bool bind_end(PyObject **slot, PyObject *end)
{
	if (end != Py_None && !*slot)
		*slot = Py_NewRef(end);
	return end != Py_None;
}

static PyObject *connection_bind(PyObject *self, PyObject *args)
{
	struct mk_hot_objects *objects = mk_hot_objects_of(self);
	PyObject *sender, *receiver, *hot;

	if (!PyArg_ParseTuple(args, "OOO", &sender, &receiver, &hot))
		return NULL;
	bind_end(&objects->hot, hot);
	objects->look_at = 0;
	/* Release, pairs with the acquire loads in the calls: they see what is set above. */
	mk_store_release(&objects->sends, bind_end(&objects->sender, sender));
	mk_store_release(&objects->receives, bind_end(&objects->receiver, receiver));
	return mk_hot_nothing();
}

static PyMethodDef connection_methods[] = {
	{"send", MK_HOT_FAST(hot_send), METH_FASTCALL | METH_KEYWORDS, DOC_ConnectionCalls_send},
	{"recv", MK_HOT_FAST(hot_recv), METH_FASTCALL | METH_KEYWORDS, DOC_ConnectionCalls_recv},
	{"_bind", connection_bind, METH_VARARGS,
	 "_bind($self, sender, receiver, hot)\n--\n\n"
	 "A claimed Sender and Receiver, None: not for calls in C. hot: of concurrent/objects.py."},
	{NULL, NULL, 0, NULL},
};

static PyType_Slot connection_slots[] = {
	{Py_tp_methods, connection_methods}, {Py_tp_dealloc, (void *)mk_hot_objects_dealloc}, {0, NULL}};

PyType_Spec mk_hot_connection_spec = {
	.name = "multikernel._core._hot.ConnectionCalls",
	.basicsize = sizeof(struct mk_hot_objects),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
	.slots = connection_slots,
};
