/* hot_queue.c: the base class of Queue. See hot_objects.c. */
#include "hot_objects.h"

#include "hot_docs.h"

static PyObject *hot_put(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
	struct mk_hot_objects *objects = mk_hot_objects_of(self);
	PyObject *record, *result;
	struct mk_queue *queue;

	if (mk_unlikely(nargs != 1 || names || !mk_load_relaxed(&objects->put_to)))
		return mk_hot_hand_on(self, "_put", args, nargs, names);
	record = mk_hot_to_record(objects, args[0]);
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
	struct mk_queue *queue = mk_load_relaxed(&mk_hot_objects_of(self)->take_from);
	uint64_t memory[MK_HOT_SMALL / sizeof(uint64_t)];
	struct mk_queue_taken taken = {0};
	PyObject *record, *result;
	int64_t length = 0;

	if (mk_likely(!nargs && !names && queue))
		length = mk_queue_try_take(queue, memory, MK_HOT_SMALL, &taken);
	if (mk_unlikely(length == 0 && taken.large.length))
		return PyObject_CallMethod(self, "_get_outside", "KK", (unsigned long long)taken.large.offset,
					   (unsigned long long)taken.large.length);
	if (mk_unlikely(length <= 0))
		return mk_hot_hand_on(self, "_get", args, nargs, names);
	record = PyBytes_FromStringAndSize((const char *)memory, (Py_ssize_t)length);
	if (!record)
		return NULL;
	result = mk_hot_from_record(mk_hot_objects_of(self), record);
	Py_DECREF(record);
	return result;
}

static PyObject *queue_bind(PyObject *self, PyObject *args)
{
	struct mk_hot_objects *objects = mk_hot_objects_of(self);
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

static PyMethodDef queue_methods[] = {
	{"put", MK_HOT_FAST(hot_put), METH_FASTCALL | METH_KEYWORDS, DOC_QueueCalls_put},
	{"get", MK_HOT_FAST(hot_get), METH_FASTCALL | METH_KEYWORDS, DOC_QueueCalls_get},
	{"_bind", queue_bind, METH_VARARGS,
	 "_bind($self, put_to, take_from, hot)\n--\n\n"
	 "The queue lies at these addresses, 0: not for calls in C. hot: of concurrent/objects.py."},
	{NULL, NULL, 0, NULL},
};

static PyType_Slot queue_slots[] = {
	{Py_tp_methods, queue_methods}, {Py_tp_dealloc, (void *)mk_hot_objects_dealloc}, {0, NULL}};

PyType_Spec mk_hot_queue_spec = {
	.name = "multikernel._core._hot.QueueCalls",
	.basicsize = sizeof(struct mk_hot_objects),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
	.slots = queue_slots,
};
