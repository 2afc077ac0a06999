/*
 * The record walk: chains of struct perf_event_header in bytes that may be hostile.
 * One source against Python's stable ABI; records/pure.py is its twin, under the same tests.
 */
#define Py_LIMITED_API 0x030b0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

struct header {
	uint32_t type;
	uint16_t misc;
	uint16_t size;
};

enum { RECORD_LOST = 2, RECORD_SAMPLE = 9, RECORD_LOST_SAMPLES = 13, LAST_TYPE = 63 };

/* Records begin at multiples of 8, so a copied header never crosses the end that was checked. */
static struct header header_at(const unsigned char *data, Py_ssize_t at)
{
	struct header h;

	memcpy(&h, data + at, sizeof(h));
	return h;
}

static uint64_t word_at(const unsigned char *data, Py_ssize_t at)
{
	uint64_t word;

	memcpy(&word, data + at, sizeof(word));
	return word;
}

/* Whether a whole record of the kernel's can lie between at and end. */
static int plausible(struct header h, Py_ssize_t at, Py_ssize_t end)
{
	return h.size >= 8 && h.size % 8 == 0 && h.size <= end - at &&
	       h.type >= 1 && h.type <= LAST_TYPE;
}

static uint64_t lost_in(const unsigned char *data, Py_ssize_t at, struct header h)
{
	if (h.type == RECORD_LOST && h.size >= 24)
		return word_at(data, at + 16);
	if (h.type == RECORD_LOST_SAMPLES && h.size >= 16)
		return word_at(data, at + 8);
	return 0;
}

/* walk(data, start, end, every) -> (end of the chain, records, lost, offset of each every-th) */
static PyObject *walk(PyObject *self, PyObject *args)
{
	Py_buffer view;
	Py_ssize_t start, end, every, at, count = 0;
	uint64_t lost = 0;
	PyObject *marks, *result;

	(void)self;
	if (!PyArg_ParseTuple(args, "y*nnn", &view, &start, &end, &every))
		return NULL;
	if (end > view.len)
		end = view.len;
	if (end < 0)
		end = 0; /* or end - at could overflow */
	if (start < 0 || every < 1) {
		PyBuffer_Release(&view);
		PyErr_SetString(PyExc_ValueError, "start must be >= 0 and every >= 1");
		return NULL;
	}
	marks = PyList_New(0);
	if (!marks) {
		PyBuffer_Release(&view);
		return NULL;
	}
	for (at = start; end - at >= 8; count++) {
		struct header h = header_at(view.buf, at);

		if (!plausible(h, at, end))
			break;
		if (count % every == 0) {
			PyObject *mark = PyLong_FromSsize_t(at);

			if (!mark || PyList_Append(marks, mark) < 0) {
				Py_XDECREF(mark);
				Py_DECREF(marks);
				PyBuffer_Release(&view);
				return NULL;
			}
			Py_DECREF(mark);
		}
		lost += lost_in(view.buf, at, h);
		at += h.size;
	}
	PyBuffer_Release(&view);
	result = Py_BuildValue("nnKN", at, count, (unsigned long long)lost, marks);
	return result;
}

static int known(uint64_t id, const unsigned char *ids, Py_ssize_t count)
{
	Py_ssize_t low = 0, high = count;

	while (low < high) {
		Py_ssize_t middle = low + (high - low) / 2;

		if (word_at(ids, middle * 8) < id)
			low = middle + 1;
		else
			high = middle;
	}
	return low < count && word_at(ids, low * 8) == id;
}

/*
 * first_chained(data, start, ids) -> offset
 *
 * The earliest offset >= start from which the chain of records is valid and ends exactly at the
 * end of data. ids: sorted u64 words; when not empty, every record must carry one of them: a
 * sample in its first word, any other record in its last.
 *
 * Every slot of 8 bytes is looked at once, from the end: it is good when a record there ends at
 * a slot that is good.
 */
static PyObject *first_chained(PyObject *self, PyObject *args)
{
	Py_buffer view, ids;
	Py_ssize_t start, slots, slot, first;
	unsigned char *good;

	(void)self;
	if (!PyArg_ParseTuple(args, "y*ny*", &view, &start, &ids))
		return NULL;
	if (start < 0)
		start = 0;
	if (start > view.len)
		start = view.len;
	slots = view.len / 8;
	first = slots;
	good = PyMem_Calloc(slots + 1, 1);
	if (!good) {
		PyBuffer_Release(&view);
		PyBuffer_Release(&ids);
		return PyErr_NoMemory();
	}
	good[slots] = view.len % 8 == 0;
	for (slot = slots - 1; slot >= (start + 7) / 8; slot--) {
		Py_ssize_t at = slot * 8;
		struct header h = header_at(view.buf, at);

		if (!plausible(h, at, slots * 8) || !good[slot + h.size / 8])
			continue;
		if (ids.len >= 8) {
			Py_ssize_t id_at = h.type == RECORD_SAMPLE ? at + 8 : at + h.size - 8;

			if (h.size < 16 || !known(word_at(view.buf, id_at), ids.buf, ids.len / 8))
				continue;
		}
		good[slot] = 1;
		first = slot;
	}
	PyMem_Free(good);
	PyBuffer_Release(&view);
	PyBuffer_Release(&ids);
	return PyLong_FromSsize_t(first * 8);
}

static PyMethodDef methods[] = {
	{"walk", walk, METH_VARARGS, "Follow a chain of records; see records/pure.py."},
	{"first_chained", first_chained, METH_VARARGS, "Find a chain's start; see records/pure.py."},
	{NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
	PyModuleDef_HEAD_INIT, "_walk", "The record walk, native.", -1, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__walk(void)
{
	return PyModule_Create(&module);
}
