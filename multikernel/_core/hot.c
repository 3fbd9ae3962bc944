/* hot.c: the module multikernel._core._hot: base classes of Sender, Receiver, Queue and Connection
 * whose methods are C.
 *
 * They do what is common at once, and hand everything else (an end that is not claimed yet, elements, other payloads
 * than bytes, every error) to the method of the same name with an underscore in front, which goes through cffi and is
 * complete. So this file decides nothing about what a call means.
 *
 * The C core is in the cffi module, once, with its state. This module gets a table of the functions that the inline
 * calls of lane.h fall back to; what follows below are those functions' names here.
 */
#include "hot.h"

#include "hot_core.h"

static const struct mk_hot_core *core;

const struct mk_hot_core *mk_hot_core(void)
{
	return core;
}

bool mk_end_gone(struct mk_end *end, bool now)
{
	return core->end_gone(end, now);
}

void mk_ring_bell(struct mk_end *end)
{
	core->ring_bell(end);
}

int mk_quarantine(struct mk_end *end, uint32_t bad, uint64_t value)
{
	return core->quarantine(end, bad, value);
}

int mk_look_for_room(struct mk_sender *tx, uint64_t size)
{
	return core->look_for_room(tx, size);
}

int mk_look(struct mk_receiver *rx, uint64_t size)
{
	return core->look(rx, size);
}

int mk_look_on(struct mk_receiver *rx)
{
	return core->look_on(rx);
}

bool mk_ipi_look(struct mk_receiver *rx)
{
	return core->ipi_look(rx);
}

int mk_wait(struct mk_end *end, int64_t timeout_ns)
{
	return core->wait(end, timeout_ns);
}

bool mk_end_ready(struct mk_end *end)
{
	return core->end_ready(end);
}

void mk_event_settle(struct mk_end *end)
{
	core->event_settle(end);
}

uint64_t mk_now(void)
{
	return core->now();
}

uint32_t mk_fork_generation(void)
{
	return core->fork_generation();
}

int mk_membarrier_own(void)
{
	return core->membarrier_own();
}

int mk_queue_put_one(struct mk_queue *q, const void *record, uint64_t length)
{
	return core->queue_put_one(q, record, length);
}

int64_t mk_queue_try_take(struct mk_queue *q, void *to, uint64_t room, struct mk_queue_taken *taken)
{
	return core->queue_try_take(q, to, room, taken);
}

/* --- arguments -------------------------------------------------------------------------------------------------- */

#define FOR_EVER 1e9 /* seconds; as in shm/waiting.py */

int mk_hot_timeout(PyObject *argument, int64_t *deadline)
{
	double seconds;

	*deadline = -1;
	if (!argument || argument == Py_None)
		return 1;
	seconds = PyFloat_AsDouble(argument);
	if (seconds == -1.0 && PyErr_Occurred()) {
		PyErr_Clear();
		return 0;
	}
	if (seconds <= 0)
		*deadline = 0;
	else if (seconds <= FOR_EVER)
		*deadline = (int64_t)mk_now() + (int64_t)(seconds * 1e9 + 0.5);
	return seconds == seconds;
}

int mk_hot_arguments(const char *name, PyObject *const *args, Py_ssize_t nargs, PyObject *names, const char *first_name,
		     PyObject **first, PyObject **timeout)
{
	PyObject **slots[2] = {first, timeout};
	Py_ssize_t least = first ? 1 : 0, taken = 0;

	if (first)
		*first = NULL;
	*timeout = NULL;
	if (nargs > least + 1) {
		PyErr_Format(PyExc_TypeError, "%s() takes at most %zd arguments (%zd given)", name, least + 1, nargs);
		return -1;
	}
	for (; taken < nargs; taken++)
		*slots[taken + 1 - least] = args[taken];
	for (Py_ssize_t i = 0; names && i < PyTuple_Size(names); i++) {
		PyObject *key = PyTuple_GetItem(names, i);
		PyObject **slot = NULL;

		if (!PyUnicode_CompareWithASCIIString(key, "timeout"))
			slot = timeout;
		else if (first && !PyUnicode_CompareWithASCIIString(key, first_name))
			slot = first;
		if (!slot || *slot) {
			PyErr_Format(PyExc_TypeError, "%s() got %s argument '%U'", name,
				     slot ? "twice the" : "an unexpected keyword", key);
			return -1;
		}
		*slot = args[nargs + i];
	}
	if (first && !*first) {
		PyErr_Format(PyExc_TypeError, "%s() misses its argument '%s'", name, first_name);
		return -1;
	}
	return 0;
}

/* --- waiting ---------------------------------------------------------------------------------------------------- */

#define KEEP_LOCK_NS \
	5000u /* spinning this long keeps the interpreter's lock: letting it go and taking it back costs more */
#define LOOKS_PER_CLOCK 16u

/* Look on for some microseconds, unless the other side cannot answer meanwhile. Without a pause between the looks: it
 * would take as long as the answer. */
static bool look_on(struct mk_end *end)
{
	const struct mk_receiver *rx = (const struct mk_receiver *)(const void *)end;
	uint64_t until;

	/* Relaxed, hints both: where we waited last and where the other side did. */
	if (end->policy == MK_WAIT_PARK ||
	    (end->policy == MK_WAIT_ADAPTIVE &&
	     (end->spin.budget_ns < KEEP_LOCK_NS || mk_load_relaxed(end->peer_cpu) == mk_load_relaxed(end->cpu))))
		return false;
	until = mk_now() + KEEP_LOCK_NS;
	do
		for (unsigned looks = 0; looks < LOOKS_PER_CLOCK && !end->sending; looks++) {
			if (mk_load_relaxed(&rx->peer->head) != rx->next) /* a hint: mk_filled looks again and checks */
				return true;
			mk_pause();
		}
	while (!mk_end_ready(end) && mk_now() < until);
	return mk_end_ready(end);
}

int mk_hot_wait(struct mk_end *end, int64_t deadline, bool *in)
{
	int result;

	if (deadline == 0) {
		uint64_t now = mk_now();

		if (now - end->looked < MK_PY_LIFE_NS)
			return -EAGAIN;
		end->looked = now;
		return mk_end_gone(end, true) ? 0 : -EAGAIN;
	}
	if (look_on(end))
		return 0;
	/* Of no wait of the other half of the binding, which tells its waits apart by their deadlines. */
	end->waits_until = INT64_MIN;
	end->signals_seen = false;
	for (;;) {
		int64_t left = deadline < 0 ? -1 : deadline - (int64_t)mk_now();

		if (deadline > 0 && left < 0)
			left = 0;
		Py_BEGIN_ALLOW_THREADS result = mk_wait(end, left);
		Py_END_ALLOW_THREADS if (result != -EINTR) return result;
		mk_py_leave(end);
		*in = false;
		if (PyErr_CheckSignals())
			return MK_HOT_RAISED;
		result = mk_py_enter(end);
		if (result)
			return result;
		*in = true;
		if (end->waits_until != INT64_MIN) /* a handler has waited on it, too */
			return 0;
	}
}

PyObject *mk_hot_fail(PyObject *self, int code, PyObject *timeout, uint64_t length)
{
	PyObject *result = PyObject_CallMethod(self, "_fail", "iOK", code, timeout ? timeout : Py_None,
					       (unsigned long long)length);

	if (result) {
		Py_DECREF(result);
		PyErr_SetString(PyExc_SystemError, "_fail did not raise");
	}
	return NULL;
}

/* --- the module -------------------------------------------------------------------------------------------------- */

static PyObject *bind(PyObject *Py_UNUSED(module), PyObject *address)
{
	const struct mk_hot_core *table = PyLong_AsVoidPtr(address);

	if (!table) {
		if (!PyErr_Occurred())
			PyErr_SetString(PyExc_ValueError, "no table of the core");
		return NULL;
	}
	if (table->size != sizeof(*table) || table->abi != MK_ABI_VERSION || table->end_size != sizeof(struct mk_end)) {
		PyErr_Format(
			PyExc_ImportError,
			"the extension was built for ABI version %u, the core is of version %u: install the package again",
			MK_ABI_VERSION, table->abi);
		return NULL;
	}
	core = table;
	return mk_hot_nothing();
}

static PyMethodDef functions[] = {
	{"bind", bind, METH_O,
	 "bind(address)\n--\n\nUse the core whose table lies at this address. Once, before all else."},
	{NULL, NULL, 0, NULL},
};

static int add_types(PyObject *module)
{
	static const struct {
		PyType_Spec *spec;
		bool derived; /* from the one before it */
	} types[] = {
		{&mk_hot_send_spec, false},       {&mk_hot_receive_spec, false}, {&mk_hot_queue_spec, false},
		{&mk_hot_connection_spec, false}, {&mk_hot_cast_spec, false},    {&mk_hot_fan_spec, false},
		{&mk_hot_mailbox_spec, true},
	};
	PyObject *before = NULL;
	int result = 0;

	for (size_t i = 0; !result && i < sizeof(types) / sizeof(*types); i++) {
		PyObject *type = PyType_FromModuleAndSpec(module, types[i].spec, types[i].derived ? before : NULL);

		Py_XDECREF(before);
		before = type;
		result = type ? PyModule_AddType(module, (PyTypeObject *)type) : -1;
	}
	Py_XDECREF(before);
	return result;
}

static PyModuleDef_Slot slots[] = {
	{Py_mod_exec, (void *)add_types},
#ifdef Py_GIL_DISABLED
	{Py_mod_gil, Py_MOD_GIL_NOT_USED}, /* what two threads share is an end, and ends.h keeps one of them off */
#endif
	{0, NULL},
};

static struct PyModuleDef definition = {
	PyModuleDef_HEAD_INIT,
	"multikernel._core._hot",
	"The calls of which a program makes millions.",
	0,
	functions,
	slots,
	NULL,
	NULL,
	NULL,
};

PyMODINIT_FUNC PyInit__hot(void)
{
	return PyModuleDef_Init(&definition);
}
