/* hot_fan.c: the base classes of MailboxReceiver, BroadcastReceiver and BroadcastSender.
 *
 * One look into the core, which finds something or does not. Who finds nothing has to wait, and that is for the Python
 * path to do: beside a wait its call costs nothing. */
#include "hot.h"

#include "hot_core.h"
#include "hot_docs.h"

#define STEP_RECORDS 64

struct fan {
	PyObject_HEAD void *at; /* struct mk_py_mailbox or mk_py_follower; NULL: not for calls in C */
	bool mailbox;
};

static struct fan *fan_of(PyObject *self)
{
	return (struct fan *)self;
}

/* Look at what is there; it is kept until `give`.
 * @param more  whether something was taken before, and nothing may be raised that would lose it
 * @return how many; < 0: the Python path says why there is none; MK_HOT_RAISED + STEP_RECORDS: an exception is set */
static int look(PyObject *self, struct mk_message *messages, int limit, uint32_t *number, bool more)
{
	void *at = fan_of(self)->at;
	int result;

	if (mk_unlikely(!at))
		return -EINVAL;
	if (!fan_of(self)->mailbox)
		return mk_hot_core()->follower_look(at, messages, limit);
	while (mk_unlikely(!(result = mk_hot_core()->mailbox_look(at, messages, limit, number, more)))) {
		PyObject *done = PyObject_CallMethod(self, "_take_in", NULL);

		if (!done)
			return STEP_RECORDS + MK_HOT_RAISED;
		Py_DECREF(done);
	}
	return result;
}

static void give(PyObject *self, void *at, bool ended_well)
{
	if (fan_of(self)->mailbox)
		mk_hot_core()->mailbox_give(at, ended_well);
	else
		mk_hot_core()->follower_give(at, ended_well);
}

static PyObject *copy_of(const struct mk_message *message, bool from, uint32_t number)
{
	PyObject *payload = PyBytes_FromStringAndSize(message->payload, message->length);

	return from && payload ? Py_BuildValue("(IN)", number, payload) : payload;
}

/* The next message. @return NULL: an exception is set; or it is for the Python path: *slow */
static PyObject *take(PyObject *self, bool from, bool *slow)
{
	void *at = fan_of(self)->at;
	struct mk_message message;
	uint32_t number = 0;
	PyObject *result;
	int found = look(self, &message, 1, &number, false);

	*slow = found < 0 && found != -EBADMSG;
	if (mk_unlikely(found == -EBADMSG)) /* said once: a sender was cut off */
		return PyObject_CallMethod(self, "_fail_to_look", "i", found);
	if (mk_unlikely(found != 1))
		return NULL;
	result = copy_of(&message, from, number);
	give(self, at, result != NULL);
	return result;
}

static PyObject *receive(PyObject *self, bool from, const char *name, PyObject *const *args, Py_ssize_t nargs,
			 PyObject *names)
{
	PyObject *timeout = NULL, *result;
	char slower[16] = "_";
	int64_t deadline;
	bool slow;

	if (mk_unlikely(nargs || names) && mk_hot_arguments(name, args, nargs, names, NULL, NULL, &timeout))
		return NULL;
	if (mk_likely(mk_hot_timeout(timeout, &deadline))) {
		result = take(self, from, &slow);
		if (mk_likely(!slow))
			return result;
	}
	return PyObject_CallMethod(self, strcat(slower, name), "(O)", timeout ? timeout : Py_None);
}

static PyObject *hot_recv(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
	return receive(self, false, "recv", args, nargs, names);
}

static PyObject *hot_recv_from(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
	return receive(self, true, "recv_from", args, nargs, names);
}

static PyObject *hot_try_recv(PyObject *self, PyObject *Py_UNUSED(nothing))
{
	bool slow;
	PyObject *result = take(self, false, &slow);

	return slow ? PyObject_CallMethod(self, "_try_recv", NULL) : result;
}

static PyObject *hot_try_recv_from(PyObject *self, PyObject *Py_UNUSED(nothing))
{
	bool slow;
	PyObject *result = take(self, true, &slow);

	return slow ? PyObject_CallMethod(self, "_try_recv_from", NULL) : result;
}

static PyObject *hot_next(PyObject *self)
{
	bool slow;
	PyObject *result = take(self, false, &slow);

	return slow ? PyObject_CallMethod(self, "_next", NULL) : result;
}

/* --- batches ----------------------------------------------------------------------------------------------------- */

/* Take what one look finds, behind what is in the list. @return as `look`; what does not fit stays */
static int take_step(PyObject *self, PyObject *list, Py_ssize_t left, bool from)
{
	void *at = fan_of(self)->at;
	struct mk_message messages[STEP_RECORDS];
	Py_ssize_t before = PyList_Size(list);
	uint32_t number = 0;
	int found = look(self, messages, left < STEP_RECORDS ? (int)left : STEP_RECORDS, &number, before > 0);

	if (found < 0 || found > STEP_RECORDS)
		return found;
	for (int i = 0; i < found; i++) {
		PyObject *copy = copy_of(&messages[i], from, number);
		bool good = copy && !PyList_Append(list, copy);

		Py_XDECREF(copy);
		if (!good) {
			if (PyList_SetSlice(list, before, PY_SSIZE_T_MAX, NULL)) /* they are not taken after all */
				PyErr_Clear();
			give(self, at, false);
			return STEP_RECORDS + MK_HOT_RAISED;
		}
	}
	give(self, at, true);
	return found;
}

/* @return a list; NULL: an exception is set, or it is for the Python path: *slow */
static PyObject *take_many(PyObject *self, PyObject *limit, bool from, bool *slow)
{
	Py_ssize_t most = PyLong_Check(limit) ? PyLong_AsSsize_t(limit) : 0;
	PyObject *list;
	int found = 1;

	if (most == -1 && PyErr_Occurred())
		PyErr_Clear();
	*slow = most <= 0 || !fan_of(self)->at;
	if (*slow)
		return NULL;
	list = PyList_New(0);
	/* Of a broadcast one look is all: before what the next one finds something may be lacking. */
	while (list && found > 0 && found <= STEP_RECORDS && PyList_Size(list) < most &&
	       (fan_of(self)->mailbox || !PyList_Size(list)))
		found = take_step(self, list, most - PyList_Size(list), from);
	if (!list)
		return NULL;
	if (found > STEP_RECORDS) {
		if (PyList_Size(list)) { /* what was taken before is given out; who asks again meets the error again */
			PyErr_Clear();
			return list;
		}
	} else if (found == -EBADMSG) { /* said once */
		bool first = !PyList_Size(list);
		PyObject *done = PyObject_CallMethod(self, first ? "_fail_to_look" : "_fail_later", "i", found);

		Py_XDECREF(done);
		if (done && !first)
			return list;
	} else if (PyList_Size(list)) {
		return list;
	} else {
		*slow = true;
	}
	Py_DECREF(list);
	return NULL;
}

static PyObject *receive_many(PyObject *self, bool from, const char *name, PyObject *const *args, Py_ssize_t nargs,
			      PyObject *names)
{
	PyObject *limit, *timeout, *result;
	char slower[24] = "_";
	int64_t deadline;
	bool slow;

	if (mk_hot_arguments(name, args, nargs, names, "limit", &limit, &timeout))
		return NULL;
	if (mk_hot_timeout(timeout, &deadline)) {
		result = take_many(self, limit, from, &slow);
		if (!slow)
			return result;
	}
	return PyObject_CallMethod(self, strcat(slower, name), "OO", limit, timeout ? timeout : Py_None);
}

static PyObject *hot_recv_many(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
	return receive_many(self, false, "recv_many", args, nargs, names);
}

static PyObject *hot_recv_many_from(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
	return receive_many(self, true, "recv_many_from", args, nargs, names);
}

static PyObject *hot_try_recv_many(PyObject *self, PyObject *limit)
{
	bool slow;
	PyObject *result = take_many(self, limit, false, &slow);

	return slow ? PyObject_CallMethod(self, "_try_recv_many", "(O)", limit) : result;
}

static PyObject *hot_try_recv_many_from(PyObject *self, PyObject *limit)
{
	bool slow;
	PyObject *result = take_many(self, limit, true, &slow);

	return slow ? PyObject_CallMethod(self, "_try_recv_many_from", "(O)", limit) : result;
}

/* --- the sender of a broadcast ------------------------------------------------------------------------------------- */

struct cast {
	PyObject_HEAD struct mk_py_broadcast *at; /* NULL: not claimed yet, or closed */
};

/* @return whether it is done: *why says how; if not the Python path does it */
static bool try_to_send(PyObject *self, PyObject *payload, int *why)
{
	struct mk_py_broadcast *at = ((struct cast *)self)->at;
	Py_ssize_t length;
	char *bytes;

	if (mk_unlikely(!at || !PyBytes_CheckExact(payload)))
		return false;
	PyBytes_AsStringAndSize(payload, &bytes, &length);
	if (mk_likely(length <= MK_HOT_LONG)) {
		*why = mk_hot_core()->broadcast_try(at, bytes, (uint64_t)length);
	} else {
		Py_BEGIN_ALLOW_THREADS *why = mk_hot_core()->broadcast_try(at, bytes, (uint64_t)length);
		Py_END_ALLOW_THREADS
	}
	return !*why || *why == -EBADMSG; /* said once: a receiver was cut off */
}

static PyObject *fail_to_send(PyObject *self, int why, PyObject *timeout, PyObject *payload)
{
	return PyObject_CallMethod(self, "_fail_to_send", "iOn", why, timeout ? timeout : Py_None,
				   PyBytes_Size(payload));
}

static PyObject *hot_send(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
	PyObject *payload, *timeout;
	int64_t deadline;
	int why = 0;

	if (mk_hot_arguments("send", args, nargs, names, "payload", &payload, &timeout))
		return NULL;
	if (!mk_hot_timeout(timeout, &deadline) || !try_to_send(self, payload, &why))
		return PyObject_CallMethod(self, "_send", "OO", payload, timeout ? timeout : Py_None);
	return why ? fail_to_send(self, why, timeout, payload) : mk_hot_nothing();
}

static PyObject *hot_try_send(PyObject *self, PyObject *payload)
{
	int why = 0;

	if (!try_to_send(self, payload, &why))
		return PyObject_CallMethod(self, "_try_send", "(O)", payload);
	return why ? fail_to_send(self, why, NULL, payload) : PyBool_FromLong(1);
}

/* --- the types --------------------------------------------------------------------------------------------------- */

static void *address_of(PyObject *number)
{
	return PyLong_AsVoidPtr(number);
}

static PyObject *fan_bind(PyObject *self, PyObject *args)
{
	PyObject *address;
	int mailbox;
	void *at;

	if (!PyArg_ParseTuple(args, "Op", &address, &mailbox))
		return NULL;
	at = address_of(address);
	if (!at && PyErr_Occurred())
		return NULL;
	fan_of(self)->mailbox = mailbox != 0;
	fan_of(self)->at = at;
	return mk_hot_nothing();
}

static PyObject *cast_bind(PyObject *self, PyObject *address)
{
	void *at = address_of(address);

	if (!at && PyErr_Occurred())
		return NULL;
	((struct cast *)self)->at = at;
	return mk_hot_nothing();
}

/* Also of the derived types, of which a Python class is made. */
static void dealloc(PyObject *self)
{
	PyTypeObject *type = Py_TYPE(self);
	freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);

	release(self);
	Py_DECREF(type);
}

static PyMethodDef fan_methods[] = {
	{"recv", MK_HOT_FAST(hot_recv), METH_FASTCALL | METH_KEYWORDS, DOC_FanCalls_recv},
	{"try_recv", hot_try_recv, METH_NOARGS, DOC_FanCalls_try_recv},
	{"recv_many", MK_HOT_FAST(hot_recv_many), METH_FASTCALL | METH_KEYWORDS, DOC_FanCalls_recv_many},
	{"try_recv_many", hot_try_recv_many, METH_O, DOC_FanCalls_try_recv_many},
	{"_bind", fan_bind, METH_VARARGS,
	 "_bind($self, address, mailbox)\n--\n\nThe claimed end lies there, 0: nowhere; whether it is a mailbox."},
	{NULL, NULL, 0, NULL},
};

static PyType_Slot fan_slots[] = {
	{Py_tp_methods, fan_methods},
	{Py_tp_iter, PyObject_SelfIter},
	{Py_tp_iternext, hot_next},
	{Py_tp_dealloc, (void *)dealloc},
	{0, NULL},
};

PyType_Spec mk_hot_fan_spec = {
	.name = "multikernel._core._hot.FanCalls",
	.basicsize = sizeof(struct fan),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
	.slots = fan_slots,
};

static PyMethodDef mailbox_methods[] = {
	{"recv_from", MK_HOT_FAST(hot_recv_from), METH_FASTCALL | METH_KEYWORDS, DOC_MailboxCalls_recv_from},
	{"try_recv_from", hot_try_recv_from, METH_NOARGS, DOC_MailboxCalls_try_recv_from},
	{"recv_many_from", MK_HOT_FAST(hot_recv_many_from), METH_FASTCALL | METH_KEYWORDS,
	 DOC_MailboxCalls_recv_many_from},
	{"try_recv_many_from", hot_try_recv_many_from, METH_O, DOC_MailboxCalls_try_recv_many_from},
	{NULL, NULL, 0, NULL},
};

static PyType_Slot mailbox_slots[] = {{Py_tp_methods, mailbox_methods}, {Py_tp_dealloc, (void *)dealloc}, {0, NULL}};

PyType_Spec mk_hot_mailbox_spec = {
	.name = "multikernel._core._hot.MailboxCalls",
	.basicsize = sizeof(struct fan),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
	.slots = mailbox_slots,
};

static PyMethodDef cast_methods[] = {
	{"send", MK_HOT_FAST(hot_send), METH_FASTCALL | METH_KEYWORDS, DOC_CastCalls_send},
	{"try_send", hot_try_send, METH_O, DOC_CastCalls_try_send},
	{"_bind", cast_bind, METH_O, "_bind($self, address)\n--\n\nThe claimed end lies there, 0: nowhere."},
	{NULL, NULL, 0, NULL},
};

static PyType_Slot cast_slots[] = {{Py_tp_methods, cast_methods}, {Py_tp_dealloc, (void *)dealloc}, {0, NULL}};

PyType_Spec mk_hot_cast_spec = {
	.name = "multikernel._core._hot.CastCalls",
	.basicsize = sizeof(struct cast),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
	.slots = cast_slots,
};
