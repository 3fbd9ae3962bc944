/* hot_receive.c: the base class of Receiver. */
#include "hot.h"

#include "hot_docs.h"

/* A batch is taken in steps of at most these, so that the sender gets room back while the rest is copied. */
#define STEP_RECORDS 256
#define STEP_BYTES (256u * 1024u)

/* @return NULL: not claimed yet, closed, or of elements */
static struct mk_receiver *receiver_of(PyObject *self)
{
	return mk_likely(!mk_hot_end_of(self)->elements) ? mk_hot_end_of(self)->rx : NULL;
}

/* The next record is looked at; a wait comes before it if there is none.
 * @param copy  where a short one may be put
 * @return as mk_peek and mk_hot_wait */
static int next_record(struct mk_receiver *rx, struct mk_message *message, uint64_t *copy, int64_t deadline, bool *in)
{
	for (;;) {
		int result;

		if (mk_peek_last(rx, message, copy))
			return 0;
		result = mk_peek(rx, message);
		if (mk_likely(result != -EAGAIN))
			return result;
		if (rx->pace.pause) /* in a stream the next look pauses, so that it finds more than one */
			continue;
		result = mk_hot_wait(&rx->end, deadline, in);
		if (result)
			return result;
	}
}

static PyObject *copy_of(const struct mk_message *message)
{
	PyObject *payload;

	if (mk_likely(message->length <= MK_HOT_LONG))
		return PyBytes_FromStringAndSize(message->payload, message->length);
	payload = PyBytes_FromStringAndSize(NULL, message->length);
	if (payload) {
		char *to = PyBytes_AsString(payload);

		Py_BEGIN_ALLOW_THREADS memcpy(to, message->payload, message->length);
		Py_END_ALLOW_THREADS
	}
	return payload;
}

PyObject *mk_hot_take_record(PyObject *self, int64_t deadline, int *why)
{
	struct mk_receiver *rx = receiver_of(self);
	struct mk_message message = {0};
	uint64_t copy[MK_LAST_WORDS];
	PyObject *payload = NULL;
	bool in = true;

	*why = rx ? mk_py_enter(&rx->end) : -EINVAL;
	if (mk_unlikely(*why))
		return NULL;
	*why = next_record(rx, &message, copy, deadline, &in);
	if (mk_likely(!*why)) {
		payload = copy_of(&message);
		if (mk_likely(payload))
			mk_release(rx);
		else
			mk_unpeek(rx);
	}
	if (mk_likely(in))
		mk_py_leave(&rx->end);
	if (*why == MK_HOT_RAISED)
		*why = 0;
	return payload;
}

static PyObject *hot_recv(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
	PyObject *timeout, *payload;
	int64_t deadline;
	int why;

	if (mk_likely(nargs == 0 && !names))
		timeout = NULL;
	else if (mk_hot_arguments("recv", args, nargs, names, NULL, NULL, &timeout))
		return NULL;
	if (mk_unlikely(!receiver_of(self) || !mk_hot_timeout(timeout, &deadline)))
		return PyObject_CallMethod(self, "_recv", "(O)", timeout ? timeout : Py_None);
	payload = mk_hot_take_record(self, deadline, &why);
	return mk_likely(payload) || !why ? payload : mk_hot_fail(self, why, timeout, 0);
}

static PyObject *hot_try_recv(PyObject *self, PyObject *Py_UNUSED(nothing))
{
	PyObject *payload;
	int why;

	if (mk_unlikely(!receiver_of(self)))
		return PyObject_CallMethod(self, "_try_recv", NULL);
	payload = mk_hot_take_record(self, 0, &why);
	if (payload || !why)
		return payload;
	return why == -EAGAIN ? mk_hot_nothing() : mk_hot_fail(self, why, NULL, 0);
}

static PyObject *hot_next(PyObject *self)
{
	PyObject *payload;
	int why;

	if (mk_unlikely(!receiver_of(self))) {
		payload = PyObject_CallMethod(self, "_next", NULL);
		return payload;
	}
	payload = mk_hot_take_record(self, -1, &why);
	if (mk_likely(payload) || !why)
		return payload;
	if (why == -EPIPE) /* the sender is gone, and all of it was received: the iteration ends */
		return NULL;
	return mk_hot_fail(self, why, NULL, 0);
}

/* --- batches ----------------------------------------------------------------------------------------------------- */

/* Take what is there, @limit records and a step at most. @return how many, in @payloads; -1 and an exception */
static Py_ssize_t take_step(struct mk_receiver *rx, struct mk_message *message, PyObject **payloads, Py_ssize_t limit)
{
	Py_ssize_t count = 0;

	do {
		PyObject *payload = PyBytes_FromStringAndSize(message->payload, message->length);

		if (mk_unlikely(!payload)) {
			while (count)
				Py_DECREF(payloads[--count]);
			mk_unpeek(rx);
			return -1;
		}
		payloads[count++] = payload;
	} while (count < limit && rx->looked_bytes < STEP_BYTES && !mk_peek(rx, message));
	mk_release(rx);
	return count;
}

/* @return whether they are in the list */
static bool append(PyObject *list, PyObject **payloads, Py_ssize_t count)
{
	bool good = true;

	for (Py_ssize_t i = 0; i < count; i++) {
		good = good && !PyList_Append(list, payloads[i]);
		Py_DECREF(payloads[i]);
	}
	return good;
}

static PyObject *list_of(PyObject **payloads, Py_ssize_t count)
{
	PyObject *list = PyList_New(count);

	for (Py_ssize_t i = 0; i < count; i++) {
		if (list)
			PyList_SetItem(list, i, payloads[i]); /* cannot fail: it is new, and as long as that */
		else
			Py_DECREF(payloads[i]);
	}
	return list;
}

static PyObject *take_records(struct mk_receiver *rx, Py_ssize_t limit, int64_t deadline, int *why, bool *in)
{
	PyObject *payloads[STEP_RECORDS], *list = NULL;
	struct mk_message message = {0};
	uint64_t copy[MK_LAST_WORDS];
	Py_ssize_t left = limit;

	*why = next_record(rx, &message, copy, deadline, in);
	if (*why)
		return NULL;
	do {
		Py_ssize_t count = take_step(rx, &message, payloads, left < STEP_RECORDS ? left : STEP_RECORDS);

		if (count < 0) {
			if (list) /* what was taken before is given out; who asks again meets the error again */
				PyErr_Clear();
			break;
		}
		left -= count;
		if (!list)
			list = list_of(payloads, count);
		else if (!append(list, payloads, count))
			break;
	} while (list && left && !mk_peek(rx, &message));
	if (PyErr_Occurred())
		Py_CLEAR(list);
	return list;
}

static PyObject *take_batch(PyObject *self, Py_ssize_t limit, int64_t deadline, int *why)
{
	struct mk_receiver *rx = receiver_of(self);
	PyObject *list;
	bool in = true;

	*why = mk_py_enter(&rx->end);
	if (*why)
		return NULL;
	list = take_records(rx, limit, deadline, why, &in);
	if (in)
		mk_py_leave(&rx->end);
	if (*why == MK_HOT_RAISED)
		*why = 0;
	return list;
}

/* @return 0: not a number of messages that can be; the Python path says so */
static Py_ssize_t limit_of(PyObject *argument)
{
	Py_ssize_t limit = PyLong_Check(argument) ? PyLong_AsSsize_t(argument) : 0;

	if (limit == -1 && PyErr_Occurred()) {
		PyErr_Clear();
		return PY_SSIZE_T_MAX;
	}
	return limit > 0 ? limit : 0;
}

/* @return whether the Python path is not needed: *result is it; NULL without an exception: *why says it */
static bool take_many(PyObject *self, PyObject *limit, PyObject *timeout, int64_t deadline, bool at_once,
		      PyObject **result, int *why)
{
	Py_ssize_t most = limit_of(limit);
	bool slow = false;

	*why = 0;
	if (!most)
		return false;
	if (mk_hot_end_of(self)->elements)
		*result = mk_hot_recv_elements(self, most, timeout, deadline, at_once, &slow);
	else if (receiver_of(self))
		*result = take_batch(self, most, deadline, why);
	else
		slow = true;
	return !slow;
}

static PyObject *hot_recv_many(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
	PyObject *limit, *timeout, *result;
	int64_t deadline;
	int why;

	if (mk_hot_arguments("recv_many", args, nargs, names, "limit", &limit, &timeout))
		return NULL;
	if (!mk_hot_timeout(timeout, &deadline) || !take_many(self, limit, timeout, deadline, false, &result, &why))
		return PyObject_CallMethod(self, "_recv_many", "OO", limit, timeout ? timeout : Py_None);
	return why ? mk_hot_fail(self, why, timeout, 0) : result;
}

static PyObject *hot_try_recv_many(PyObject *self, PyObject *limit)
{
	PyObject *result;
	int why;

	if (!take_many(self, limit, NULL, 0, true, &result, &why))
		return PyObject_CallMethod(self, "_try_recv_many", "(O)", limit);
	if (!why)
		return result;
	return why == -EAGAIN ? PyList_New(0) : mk_hot_fail(self, why, NULL, 0);
}

static PyObject *hot_recv_into(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
	PyObject *buffer, *timeout, *result = NULL;
	bool slow = true;
	int64_t deadline;

	if (mk_hot_arguments("recv_into", args, nargs, names, "buffer", &buffer, &timeout))
		return NULL;
	if (mk_hot_end_of(self)->elements && mk_hot_timeout(timeout, &deadline))
		result = mk_hot_recv_elements_into(self, buffer, timeout, deadline, &slow);
	return slow ? PyObject_CallMethod(self, "_recv_into", "OO", buffer, timeout ? timeout : Py_None) : result;
}

/* --- the type ---------------------------------------------------------------------------------------------------- */

static PyMethodDef methods[] = {
	{"recv", MK_HOT_FAST(hot_recv), METH_FASTCALL | METH_KEYWORDS, DOC_RecvCalls_recv},
	{"try_recv", hot_try_recv, METH_NOARGS, DOC_RecvCalls_try_recv},
	{"recv_many", MK_HOT_FAST(hot_recv_many), METH_FASTCALL | METH_KEYWORDS, DOC_RecvCalls_recv_many},
	{"try_recv_many", hot_try_recv_many, METH_O, DOC_RecvCalls_try_recv_many},
	{"recv_into", MK_HOT_FAST(hot_recv_into), METH_FASTCALL | METH_KEYWORDS, DOC_RecvCalls_recv_into},
	{"_bind", mk_hot_bind, METH_VARARGS, MK_HOT_BIND_DOC},
	{NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
	{Py_tp_methods, methods},
	{Py_tp_iter, PyObject_SelfIter},
	{Py_tp_iternext, hot_next},
	{Py_tp_dealloc, (void *)mk_hot_dealloc},
	{0, NULL},
};

PyType_Spec mk_hot_receive_spec = {
	.name = "multikernel._core._hot.RecvCalls",
	.basicsize = sizeof(struct mk_hot_end),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
	.slots = slots,
};
