/* hot_send.c: the base class of Sender. */
#include "hot.h"

#include "hot_docs.h"

#define PUBLISH_BYTES 8192u /* of a batch, so that the receiver copies while the rest is written */

struct calls {
	PyObject_HEAD struct mk_sender *tx; /* NULL: not claimed yet, closed, or of elements */
};

static struct mk_sender *sender_of(PyObject *self)
{
	return ((struct calls *)self)->tx;
}

static int put(struct mk_sender *tx, const char *bytes, uint64_t length)
{
	int result;

	if (mk_likely(length <= MK_HOT_LONG))
		return mk_send(tx, MK_MSG_USER, 0, tx->last_id + 1, bytes, length);
	Py_BEGIN_ALLOW_THREADS result = mk_send(tx, MK_MSG_USER, 0, tx->last_id + 1, bytes, length);
	Py_END_ALLOW_THREADS return result;
}

static int send_record(struct mk_sender *tx, PyObject *payload, int64_t deadline, bool *in)
{
	Py_ssize_t length;
	char *bytes;
	int result;

	PyBytes_AsStringAndSize(payload, &bytes,
				&length); /* one call, where the stable ABI has no macro; it is bytes */
	while (mk_unlikely((result = put(tx, bytes, (uint64_t)length)) == -EAGAIN)) {
		mk_count(&tx->end.counters->stalls, 1);
		result = mk_hot_wait(&tx->end, deadline, in);
		if (result)
			return result;
	}
	tx->last_id += !result;
	return result;
}

PyObject *mk_hot_send_record(PyObject *self, PyObject *payload, PyObject *timeout)
{
	struct mk_sender *tx = sender_of(self);
	int64_t deadline;
	bool in = true;
	int result;

	if (mk_unlikely(!tx || !PyBytes_CheckExact(payload) || !mk_hot_timeout(timeout, &deadline)))
		return PyObject_CallMethod(self, "_send", "OO", payload, timeout ? timeout : Py_None);
	/* A receiver that looks on has head's line. It takes as long to get it back as to come as far as the store. */
	mk_fetch_to_write(&tx->own->head);
	result = mk_py_enter(&tx->end);
	if (mk_unlikely(result))
		return mk_hot_fail(self, result, timeout, 0);
	result = send_record(tx, payload, deadline, &in);
	if (mk_likely(in))
		mk_py_leave(&tx->end);
	if (mk_likely(!result))
		return mk_hot_nothing();
	return result == MK_HOT_RAISED ? NULL : mk_hot_fail(self, result, timeout, (uint64_t)PyBytes_Size(payload));
}

static PyObject *hot_send(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
	PyObject *payload, *timeout;

	if (mk_likely(nargs == 1 && !names)) {
		payload = args[0];
		timeout = NULL;
	} else if (mk_hot_arguments("send", args, nargs, names, "payload", &payload, &timeout)) {
		return NULL;
	}
	return mk_hot_send_record(self, payload, timeout);
}

static PyObject *hot_try_send(PyObject *self, PyObject *payload)
{
	struct mk_sender *tx = sender_of(self);
	bool in = true;
	int result;

	if (mk_unlikely(!tx || !PyBytes_CheckExact(payload)))
		return PyObject_CallMethod(self, "_try_send", "(O)", payload);
	result = mk_py_enter(&tx->end);
	if (mk_unlikely(result))
		return mk_hot_fail(self, result, NULL, 0);
	result = send_record(tx, payload, 0, &in);
	mk_py_leave(&tx->end);
	if (mk_unlikely(result && result != -EAGAIN))
		return mk_hot_fail(self, result, NULL, (uint64_t)PyBytes_Size(payload));
	return PyBool_FromLong(!result);
}

/* --- batches ----------------------------------------------------------------------------------------------------- */

static bool all_bytes(PyObject *tuple)
{
	Py_ssize_t count = PyTuple_Size(tuple);

	for (Py_ssize_t i = 0; i < count; i++)
		if (!PyBytes_CheckExact(PyTuple_GetItem(tuple, i)))
			return false;
	return true;
}

/* @return how many were sent; the reason to stop early is in *why */
static Py_ssize_t send_records(struct mk_sender *tx, PyObject *tuple, int64_t deadline, int *why, bool *in)
{
	Py_ssize_t count = PyTuple_Size(tuple), done = 0;
	uint64_t published = tx->head;

	*why = 0;
	while (done < count) {
		PyObject *payload = PyTuple_GetItem(tuple, done);
		uint64_t length = (uint64_t)PyBytes_Size(payload);
		void *slot;

		*why = mk_reserve(tx, length, &slot);
		if (mk_unlikely(*why == -EAGAIN)) {
			mk_publish(tx);
			published = tx->head;
			mk_count(&tx->end.counters->stalls, 1);
			*why = mk_hot_wait(&tx->end, deadline, in);
			if (!*why)
				continue;
		}
		if (mk_unlikely(*why))
			break;
		if (length)
			memcpy(slot, PyBytes_AsString(payload), length);
		mk_finish(tx, length, MK_MSG_USER, 0, ++tx->last_id);
		done++;
		if (tx->head - published >= PUBLISH_BYTES) {
			mk_publish(tx);
			published = tx->head;
		}
	}
	if (*in) {
		int result = mk_publish(tx);

		if (!*why)
			*why = result;
	}
	return done;
}

static PyObject *send_batch(PyObject *self, PyObject *messages, PyObject *timeout, int64_t deadline, bool at_once)
{
	struct mk_sender *tx = sender_of(self);
	PyObject *tuple = PySequence_Tuple(messages);
	Py_ssize_t sent;
	bool in = true;
	int why;

	if (!tuple)
		return NULL;
	if (!all_bytes(tuple)) {
		PyObject *result = at_once ? PyObject_CallMethod(self, "_try_send_many", "(O)", tuple)
					   : PyObject_CallMethod(self, "_send_many", "OO", tuple,
								 timeout ? timeout : Py_None);

		Py_DECREF(tuple);
		return result;
	}
	why = mk_py_enter(&tx->end);
	if (why) {
		Py_DECREF(tuple);
		return mk_hot_fail(self, why, timeout, 0);
	}
	sent = send_records(tx, tuple, deadline, &why, &in);
	if (in)
		mk_py_leave(&tx->end);
	if (why && !(at_once && why == -EAGAIN)) {
		uint64_t length = sent < PyTuple_Size(tuple) ? (uint64_t)PyBytes_Size(PyTuple_GetItem(tuple, sent)) : 0;

		Py_DECREF(tuple);
		if (why == MK_HOT_RAISED)
			return NULL;
		return PyObject_CallMethod(self, "_fail_many", "inOK", why, sent, timeout ? timeout : Py_None,
					   (unsigned long long)length);
	}
	Py_DECREF(tuple);
	return PyLong_FromSsize_t(sent);
}

/* @return whether the Python path is not needed: *result is it */
static bool send_all(PyObject *self, PyObject *messages, PyObject *timeout, int64_t deadline, bool at_once,
		     PyObject **result)
{
	bool slow = false;

	if (mk_hot_end_of(self)->elements)
		*result = mk_hot_send_elements(self, messages, timeout, deadline, at_once, &slow);
	else if (sender_of(self) && (PyList_Check(messages) || PyTuple_Check(messages)))
		*result = send_batch(self, messages, timeout, deadline, at_once);
	else
		slow = true;
	return !slow;
}

static PyObject *hot_send_many(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
	PyObject *messages, *timeout, *result;
	int64_t deadline;

	if (mk_hot_arguments("send_many", args, nargs, names, "messages", &messages, &timeout))
		return NULL;
	if (mk_hot_timeout(timeout, &deadline) && send_all(self, messages, timeout, deadline, false, &result))
		return result;
	return PyObject_CallMethod(self, "_send_many", "OO", messages, timeout ? timeout : Py_None);
}

static PyObject *hot_try_send_many(PyObject *self, PyObject *messages)
{
	PyObject *result;

	if (send_all(self, messages, NULL, 0, true, &result))
		return result;
	return PyObject_CallMethod(self, "_try_send_many", "(O)", messages);
}

/* --- the type ---------------------------------------------------------------------------------------------------- */

static PyMethodDef methods[] = {
	{"send", MK_HOT_FAST(hot_send), METH_FASTCALL | METH_KEYWORDS, DOC_SendCalls_send},
	{"try_send", hot_try_send, METH_O, DOC_SendCalls_try_send},
	{"send_many", MK_HOT_FAST(hot_send_many), METH_FASTCALL | METH_KEYWORDS, DOC_SendCalls_send_many},
	{"try_send_many", hot_try_send_many, METH_O, DOC_SendCalls_try_send_many},
	{"_bind", mk_hot_bind, METH_VARARGS, MK_HOT_BIND_DOC},
	{NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {{Py_tp_methods, methods}, {Py_tp_dealloc, (void *)mk_hot_dealloc}, {0, NULL}};

PyType_Spec mk_hot_send_spec = {
	.name = "multikernel._core._hot.SendCalls",
	.basicsize = sizeof(struct mk_hot_end),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
	.slots = slots,
};
