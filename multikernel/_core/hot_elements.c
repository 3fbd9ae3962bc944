/* hot_elements.c: batches of numpy elements, and what Sender and Receiver objects hold.
 *
 * numpy is seen through the buffer protocol alone, so nothing here depends on its version. What takes long to copy is
 * copied without the interpreter's lock.
 */
#include "hot.h"

#define AHEAD 1024u /* bytes: about as many lines as a core asks for at once; twice as many were slower than none */

/* --- binding ----------------------------------------------------------------------------------------------------- */

static void forget_elements(struct mk_hot_end *end)
{
	struct mk_hot_elements *elements = end->elements;

	end->elements = NULL;
	if (!elements)
		return;
	Py_DECREF(elements->array_type);
	Py_DECREF(elements->dtype);
	Py_DECREF(elements->empty);
	Py_DECREF(elements->dtype_name);
	PyMem_Free(elements);
}

void mk_hot_dealloc(PyObject *self)
{
	PyTypeObject *type = Py_TYPE(self);
	freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);

	forget_elements(mk_hot_end_of(self));
	release(self);
	Py_DECREF(type);
}

static struct mk_hot_elements *elements_of(PyObject *array_type, PyObject *dtype, PyObject *empty, PyObject *shape,
					   unsigned long long size)
{
	struct mk_hot_elements *elements;
	Py_ssize_t dimensions = PyTuple_Size(shape);

	if (dimensions < 0)
		return NULL;
	if (dimensions > MK_HOT_DIMENSIONS) {
		PyErr_Format(PyExc_ValueError, "an element of %zd dimensions", dimensions);
		return NULL;
	}
	elements = PyMem_Calloc(1, sizeof(*elements));
	if (!elements)
		return (void *)PyErr_NoMemory();
	for (Py_ssize_t i = 0; i < dimensions; i++) {
		elements->shape[i] = PyLong_AsSsize_t(PyTuple_GetItem(shape, i));
		if (elements->shape[i] == -1 && PyErr_Occurred()) {
			PyMem_Free(elements);
			return NULL;
		}
	}
	elements->dtype_name = PyUnicode_InternFromString("dtype");
	if (!elements->dtype_name) {
		PyMem_Free(elements);
		return NULL;
	}
	elements->array_type = Py_NewRef(array_type);
	elements->dtype = Py_NewRef(dtype);
	elements->empty = Py_NewRef(empty);
	elements->dimensions = dimensions;
	elements->size = size;
	return elements;
}

PyObject *mk_hot_bind(PyObject *self, PyObject *arguments)
{
	struct mk_hot_end *end = mk_hot_end_of(self);
	PyObject *address, *array_type = NULL, *dtype = NULL, *empty = NULL, *shape = NULL;
	unsigned long long size = 0;
	void *at;

	if (!PyArg_ParseTuple(arguments, "O|OOOO!K", &address, &array_type, &dtype, &empty, &PyTuple_Type, &shape,
			      &size))
		return NULL;
	at = PyLong_AsVoidPtr(address);
	if (!at && PyErr_Occurred())
		return NULL;
	if (shape && !end->elements && !(end->elements = elements_of(array_type, dtype, empty, shape, size)))
		return NULL;
	end->tx = at;
	return Py_NewRef(Py_None);
}

/* --- arrays ------------------------------------------------------------------------------------------------------ */

static bool has_dtype(const struct mk_hot_elements *elements, PyObject *array)
{
	PyObject *dtype = PyObject_GetAttr(array, elements->dtype_name);

	if (!dtype) {
		PyErr_Clear();
		return false;
	}
	Py_DECREF(dtype);
	return dtype == elements->dtype; /* an equal one that is another object goes the long way */
}

bool mk_hot_array(const struct mk_hot_elements *elements, PyObject *array, int flags, Py_buffer *view)
{
	bool fits;

	if ((PyObject *)Py_TYPE(array) != elements->array_type || !has_dtype(elements, array))
		return false;
	if (PyObject_GetBuffer(array, view, PyBUF_ND | flags)) { /* without strides: contiguous or refused */
		PyErr_Clear();
		return false;
	}
	fits = view->ndim == elements->dimensions + 1;
	for (Py_ssize_t i = 0; fits && i < elements->dimensions; i++)
		fits = view->shape[i + 1] == elements->shape[i];
	if (!fits)
		PyBuffer_Release(view);
	return fits;
}

static void copy(void *to, const void *from, size_t length)
{
	if (mk_likely(length <= MK_HOT_LONG)) {
		mk_copy(to, from, length);
		return;
	}
	Py_BEGIN_ALLOW_THREADS memcpy(to, from, length);
	Py_END_ALLOW_THREADS
}

/* --- sending ----------------------------------------------------------------------------------------------------- */

static int64_t put(struct mk_sender *tx, const char *elements, uint64_t count, uint64_t size)
{
	int64_t sent;

	if (mk_likely(count * size <= MK_HOT_LONG))
		return mk_send_elements(tx, elements, count);
	Py_BEGIN_ALLOW_THREADS sent = mk_send_elements(tx, elements, count);
	Py_END_ALLOW_THREADS return sent;
}

/* @return how many were sent; the reason to stop early is in *why */
static Py_ssize_t send_elements(struct mk_sender *tx, const Py_buffer *view, uint64_t size, int64_t deadline, int *why,
				bool *in)
{
	Py_ssize_t done = 0, count = view->shape[0];

	*why = 0;
	while (done < count && !*why) {
		int64_t sent = put(tx, (const char *)view->buf + (uint64_t)done * size, (uint64_t)(count - done), size);

		if (sent > 0) {
			done += sent;
			continue;
		}
		*why = (int)sent;
		if (sent == -EAGAIN) {
			mk_count(&tx->end.counters->stalls, 1);
			*why = mk_hot_wait(&tx->end, deadline, in);
		}
	}
	return done;
}

PyObject *mk_hot_send_elements(PyObject *self, PyObject *array, PyObject *timeout, int64_t deadline, bool at_once,
			       bool *slow)
{
	const struct mk_hot_elements *elements = mk_hot_end_of(self)->elements;
	struct mk_sender *tx = mk_hot_end_of(self)->tx;
	Py_ssize_t sent = 0;
	Py_buffer view;
	bool in = true;
	int why;

	*slow = !tx || !mk_hot_array(elements, array, PyBUF_SIMPLE, &view);
	if (*slow)
		return NULL;
	why = mk_py_enter(&tx->end);
	if (!why) {
		sent = send_elements(tx, &view, elements->size, deadline, &why, &in);
		if (in)
			mk_py_leave(&tx->end);
	}
	PyBuffer_Release(&view);
	if (why == MK_HOT_RAISED)
		return NULL;
	if (why && !(at_once && why == -EAGAIN))
		return PyObject_CallMethod(self, "_fail_many", "inOK", why, sent, timeout ? timeout : Py_None,
					   (unsigned long long)elements->size);
	return PyLong_FromSsize_t(sent);
}

/* --- receiving --------------------------------------------------------------------------------------------------- */

/* Look at up to @limit elements; a wait comes before it if there are none. @return how many; as mk_hot_wait */
static int64_t look(struct mk_receiver *rx, uint64_t limit, const void **at, int64_t deadline, bool *in)
{
	int64_t count;

	while ((count = mk_peek_elements(rx, limit, at)) == -EAGAIN) {
		int result = mk_hot_wait(&rx->end, deadline, in);

		if (result == MK_HOT_RAISED)
			return 0;
		if (result)
			return result;
	}
	return count;
}

/* What comes next is on its way from the other core while the interpreter is at something else. Only what was
 * published: the sender is done with it. */
static void fetch_ahead(const struct mk_receiver *rx)
{
	uint64_t there = rx->head - rx->next;

	for (uint64_t at = 0; at < AHEAD && at < there; at += 64)
		mk_fetch(rx->data + ((rx->next + at) & rx->end.mask));
}

/* A new array of @count elements. */
static PyObject *new_array(const struct mk_hot_elements *elements, int64_t count, Py_buffer *view)
{
	PyObject *shape = PyTuple_New(elements->dimensions + 1), *array;

	if (!shape)
		return NULL;
	PyTuple_SetItem(shape, 0, PyLong_FromLongLong(count));
	for (Py_ssize_t i = 0; i < elements->dimensions; i++)
		PyTuple_SetItem(shape, i + 1, PyLong_FromSsize_t(elements->shape[i]));
	array = PyErr_Occurred() ? NULL : PyObject_CallFunctionObjArgs(elements->empty, shape, elements->dtype, NULL);
	Py_DECREF(shape);
	if (array && PyObject_GetBuffer(array, view, PyBUF_SIMPLE | PyBUF_WRITABLE))
		Py_CLEAR(array);
	return array;
}

/* Take what was looked at, or with @array NULL leave it. */
static void settle(struct mk_receiver *rx, PyObject *array, Py_buffer *view, const void *at)
{
	if (!array) {
		mk_unpeek(rx);
		return;
	}
	if (view->len) /* else there may be no memory to copy from */
		copy(view->buf, at, (size_t)view->len);
	mk_release(rx);
	fetch_ahead(rx);
	PyBuffer_Release(view);
}

PyObject *mk_hot_recv_elements(PyObject *self, Py_ssize_t limit, PyObject *timeout, int64_t deadline, bool at_once,
			       bool *slow)
{
	const struct mk_hot_elements *elements = mk_hot_end_of(self)->elements;
	struct mk_receiver *rx = mk_hot_end_of(self)->rx;
	PyObject *array = NULL;
	const void *at = NULL;
	Py_buffer view;
	bool in = true;
	int64_t count;

	*slow = !rx;
	if (*slow)
		return NULL;
	count = mk_py_enter(&rx->end);
	if (count)
		return mk_hot_fail(self, (int)count, timeout, 0);
	count = look(rx, (uint64_t)limit, &at, deadline, &in);
	if (count > 0 || (at_once && count == -EAGAIN)) {
		array = new_array(elements, count > 0 ? count : 0, &view);
		settle(rx, array, &view, at);
	}
	if (in)
		mk_py_leave(&rx->end);
	return array || PyErr_Occurred() ? array : mk_hot_fail(self, (int)count, timeout, 0);
}

PyObject *mk_hot_recv_elements_into(PyObject *self, PyObject *array, PyObject *timeout, int64_t deadline, bool *slow)
{
	const struct mk_hot_elements *elements = mk_hot_end_of(self)->elements;
	struct mk_receiver *rx = mk_hot_end_of(self)->rx;
	const void *at = NULL;
	Py_buffer view;
	bool in = true;
	int64_t count;

	*slow = !rx || !mk_hot_array(elements, array, PyBUF_WRITABLE, &view);
	if (*slow)
		return NULL;
	if (!view.len) {
		*slow = true;
		PyBuffer_Release(&view);
		return NULL;
	}
	count = mk_py_enter(&rx->end);
	if (!count) {
		count = look(rx, (uint64_t)view.shape[0], &at, deadline, &in);
		if (count > 0) {
			copy(view.buf, at, (uint64_t)count * elements->size);
			mk_release(rx);
			fetch_ahead(rx);
		}
		if (in)
			mk_py_leave(&rx->end);
	}
	PyBuffer_Release(&view);
	if (count > 0)
		return PyLong_FromLongLong(count);
	return PyErr_Occurred() ? NULL : mk_hot_fail(self, (int)count, timeout, 0);
}
