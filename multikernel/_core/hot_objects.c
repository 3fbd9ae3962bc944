/* hot_objects.c: objects to records and back, as concurrent/objects.py does it, with a pickler that is kept.
 *
 * hot_queue.c and hot_connection.c do what is common with small objects on a way that is open. All else (what waits,
 * what is long, out-of-band buffers, places, every error) is for the methods with an underscore in front.
 */
#include "hot_objects.h"

#define PICKLE 0x80 /* the first byte of a record that is a pickle and nothing else */
#define PROTOCOL 5L /* of pickles */

enum hot {
	MAKE,
	IN_PIECES,
	DUMPS,
	FROM_RECORD,
	LOADS
}; /* of `HOT` in concurrent/objects.py */
enum encoder {
	ENCODER_DUMP,
	ENCODER_FORGET,
	ENCODER_PIECES,
	ENCODER_BUFFERS
}; /* of an _Encoder */

PyObject *mk_hot_hand_on(PyObject *self, const char *name, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
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
	       (PyBytes_CheckExact(value) && PyBytes_Size(value) < (Py_ssize_t)MK_HOT_SMALL);
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

PyObject *mk_hot_to_record(struct mk_hot_objects *self, PyObject *value)
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

bool mk_hot_is_pickle(PyObject *record)
{
	return PyBytes_Size(record) > 0 && (unsigned char)PyBytes_AsString(record)[0] == PICKLE;
}

PyObject *mk_hot_from_record(struct mk_hot_objects *self, PyObject *record)
{
	return PyObject_CallFunctionObjArgs(PyTuple_GetItem(self->hot, mk_hot_is_pickle(record) ? LOADS : FROM_RECORD),
					    record, NULL);
}

void mk_hot_objects_dealloc(PyObject *self)
{
	struct mk_hot_objects *objects = mk_hot_objects_of(self);
	PyTypeObject *type = Py_TYPE(self);
	freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);

	Py_XDECREF(objects->hot);
	Py_XDECREF(mk_load_relaxed(&objects->idle));
	Py_XDECREF(objects->sender);
	Py_XDECREF(objects->receiver);
	release(self);
	Py_DECREF(type);
}
