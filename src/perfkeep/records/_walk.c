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

/* Which of the sorted ids it is, or -1. */
static Py_ssize_t index_of(uint64_t id, const unsigned char *ids, Py_ssize_t count)
{
	Py_ssize_t low = 0, high = count;

	while (low < high) {
		Py_ssize_t middle = low + (high - low) / 2;

		if (word_at(ids, middle * 8) < id)
			low = middle + 1;
		else
			high = middle;
	}
	return low < count && word_at(ids, low * 8) == id ? low : -1;
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

			if (h.size < 16 || index_of(word_at(view.buf, id_at), ids.buf, ids.len / 8) < 0)
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

/* Offsets of records, as many as there are. */
struct offsets {
	int64_t *at;
	Py_ssize_t count, room, smallest;
};

static int append(struct offsets *some, int64_t at)
{
	if (some->count == some->room) {
		Py_ssize_t room = some->room ? some->room * 2 : 64;
		int64_t *grown = PyMem_Realloc(some->at, room * sizeof(*grown));

		if (!grown)
			return -1;
		some->at = grown;
		some->room = room;
	}
	some->at[some->count++] = at;
	return 0;
}

/*
 * split(data, start, end, id_at, ids, kinds, count) -> (end of the chain, lost, [offsets], [smallest])
 *
 * The records of a file, by what wrote them: samples of kind 0 … count - 1, other records, samples
 * of an unknown id; and the size of the smallest of each. Offsets are native int64. id_at: where in a sample its id is; < 0: every sample
 * is of kind 0. ids: sorted u64 words, and kinds: for each a u32.
 */
static PyObject *split(PyObject *self, PyObject *args)
{
	Py_buffer view, ids, kinds;
	Py_ssize_t start, end, id_at, count, at, i;
	uint64_t lost = 0;
	struct offsets *found;
	PyObject *lists = NULL, *sizes = NULL, *result = NULL;

	(void)self;
	if (!PyArg_ParseTuple(args, "y*nnny*y*n", &view, &start, &end, &id_at, &ids, &kinds, &count))
		return NULL;
	if (end > view.len)
		end = view.len;
	if (start < 0 || count < 0 || count > 1 << 20 || kinds.len / 4 < ids.len / 8) {
		PyErr_SetString(PyExc_ValueError, "start and count must be >= 0, and every id have a kind");
		goto release;
	}
	found = PyMem_Calloc(count + 2, sizeof(*found));
	if (!found) {
		PyErr_NoMemory();
		goto release;
	}
	for (at = start; end - at >= 8;) {
		struct header h = header_at(view.buf, at);
		Py_ssize_t bucket = count;

		if (h.size < 8 || h.size > end - at || !h.type)
			break;
		if (h.type == RECORD_SAMPLE) {
			bucket = id_at < 0 && count ? 0 : count + 1;
			if (id_at >= 0 && id_at + 8 <= h.size) {
				Py_ssize_t index = index_of(word_at(view.buf, at + id_at), ids.buf,
							    ids.len / 8);
				uint32_t kind = 0;

				if (index >= 0) {
					memcpy(&kind, (char *)kinds.buf + index * 4, 4);
					if ((Py_ssize_t)kind < count)
						bucket = kind;
				}
			}
		}
		lost += lost_in(view.buf, at, h);
		if (append(&found[bucket], at) < 0) {
			PyErr_NoMemory();
			goto done;
		}
		if (found[bucket].count == 1 || found[bucket].smallest > h.size)
			found[bucket].smallest = h.size;
		at += h.size;
	}
	lists = PyList_New(count + 2);
	sizes = PyList_New(count + 2);
	for (i = 0; lists && i < count + 2; i++) {
		PyObject *one = PyBytes_FromStringAndSize((char *)found[i].at,
							  found[i].count * sizeof(int64_t));

		PyObject *size = PyLong_FromSsize_t(found[i].smallest);

		if (!one || PyList_SetItem(lists, i, one) < 0)
			Py_CLEAR(lists);
		if (!sizes || !size || PyList_SetItem(sizes, i, size) < 0)
			Py_CLEAR(sizes);
	}
	if (lists && sizes)
		result = Py_BuildValue("nKOO", at, (unsigned long long)lost, lists, sizes);
	Py_XDECREF(lists);
	Py_XDECREF(sizes);
done:
	for (i = 0; i < count + 2; i++)
		PyMem_Free(found[i].at);
	PyMem_Free(found);
release:
	PyBuffer_Release(&view);
	PyBuffer_Release(&ids);
	PyBuffer_Release(&kinds);
	return result;
}

/* Places and lengths, native int64 each, of as many spans; all of them must lie within data. */
static int spans_fit(const Py_buffer *data, const Py_buffer *places, const Py_buffer *lengths)
{
	const int64_t *at = places->buf, *length = lengths->buf;
	Py_ssize_t i, count = places->len / 8;

	if (places->len != lengths->len || places->len % 8) {
		PyErr_SetString(PyExc_ValueError, "every place needs a length");
		return 0;
	}
	for (i = 0; i < count; i++) {
		if (at[i] < 0 || length[i] < 0 || at[i] > data->len || length[i] > data->len - at[i]) {
			PyErr_SetString(PyExc_IndexError, "a span lies outside the data");
			return 0;
		}
	}
	return 1;
}

/* join(data, places, lengths, out): copy the spans into out, one behind the other. */
static PyObject *join(PyObject *self, PyObject *args)
{
	Py_buffer data, places, lengths, out;
	PyObject *result = NULL;

	(void)self;
	if (!PyArg_ParseTuple(args, "y*y*y*w*", &data, &places, &lengths, &out))
		return NULL;
	if (spans_fit(&data, &places, &lengths)) {
		const int64_t *at = places.buf, *length = lengths.buf;
		Py_ssize_t i, count = places.len / 8;
		char *to = out.buf;
		int64_t room = out.len;

		for (i = 0; i < count && length[i] <= room; i++) {
			memcpy(to, (char *)data.buf + at[i], length[i]);
			to += length[i];
			room -= length[i];
		}
		if (i < count || room)
			PyErr_SetString(PyExc_ValueError, "the spans do not fill their room");
		else
			result = Py_NewRef(Py_None);
	}
	PyBuffer_Release(&data);
	PyBuffer_Release(&places);
	PyBuffer_Release(&lengths);
	PyBuffer_Release(&out);
	return result;
}

enum { MOST_FIELDS = 1024, WIDEST = 8 };

/* The rows of one call of gather; `at` are the places. */
static int gather_rows(const Py_buffer *data, const int64_t *at, Py_ssize_t rows,
		       const int32_t *offset, const int32_t *width, char **to, Py_ssize_t count)
{
	Py_ssize_t row, i;
	int64_t reach = 0;

	if (!count)
		return 0;
	for (i = 0; i < count; i++)
		if (reach < (int64_t)offset[i] + width[i])
			reach = (int64_t)offset[i] + width[i];
	for (row = 0; row < rows; row++) {
		const char *from = (const char *)data->buf + at[row];

		if (at[row] < 0 || at[row] > data->len || data->len - at[row] < reach)
			return -1;
		for (i = 0; i < count; i++) {
			/* Fixed sizes become single moves. */
			if (width[i] == 8)
				memcpy(to[i] + row * 8, from + offset[i], 8);
			else if (width[i] == 4)
				memcpy(to[i] + row * 4, from + offset[i], 4);
			else
				memcpy(to[i] + row * width[i], from + offset[i], width[i]);
		}
	}
	return 0;
}

/*
 * gather(data, places, fields, columns)
 *
 * Of every place the same fields, each into a column of its own. fields: pairs of int32, the offset
 * from a place and the width, 1 to 8 bytes; columns: a tuple of writable buffers. One pass, as each
 * record is one miss of the cache.
 */
static PyObject *gather(PyObject *self, PyObject *args)
{
	Py_buffer data, places, fields, columns[MOST_FIELDS];
	PyObject *outs, *result = NULL;
	char *to[MOST_FIELDS];
	int32_t offset[MOST_FIELDS], width[MOST_FIELDS];
	Py_ssize_t count, rows, i, taken = 0;
	int outside;

	(void)self;
	if (!PyArg_ParseTuple(args, "y*y*y*O!", &data, &places, &fields, &PyTuple_Type, &outs))
		return NULL;
	count = fields.len / 8;
	rows = places.len / 8;
	if (count > MOST_FIELDS || PyTuple_Size(outs) != count) {
		PyErr_SetString(PyExc_ValueError, "every field needs a column, and there may be 1,024");
		goto release;
	}
	for (i = 0; i < count; i++) {
		memcpy(&offset[i], (char *)fields.buf + i * 8, 4);
		memcpy(&width[i], (char *)fields.buf + i * 8 + 4, 4);
		if (width[i] < 1 || width[i] > WIDEST || offset[i] < 0) {
			PyErr_SetString(PyExc_ValueError, "a field has 1 to 8 bytes");
			goto release;
		}
	}
	for (; taken < count; taken++) {
		if (PyObject_GetBuffer(PyTuple_GetItem(outs, taken), &columns[taken],
				       PyBUF_WRITABLE) < 0)
			goto release;
		to[taken] = columns[taken].buf;
		if (columns[taken].len != rows * width[taken]) {
			PyBuffer_Release(&columns[taken]);
			PyErr_SetString(PyExc_ValueError, "a column has not the room for its field");
			goto release;
		}
	}
	Py_BEGIN_ALLOW_THREADS
	outside = gather_rows(&data, places.buf, rows, offset, width, to, count);
	Py_END_ALLOW_THREADS
	if (outside)
		PyErr_SetString(PyExc_IndexError, "a field lies outside the data");
	else
		result = Py_NewRef(Py_None);
release:
	while (taken--)
		PyBuffer_Release(&columns[taken]);
	PyBuffer_Release(&data);
	PyBuffer_Release(&places);
	PyBuffer_Release(&fields);
	return result;
}

static int plain(const char *text, int64_t size)
{
	int64_t i;

	for (i = 0; i < size; i++)
		if ((unsigned char)text[i] >= 0x80)
			return 0;
	return 1;
}

/*
 * texts(data, places, lengths) -> (offsets, bytes, odd)
 *
 * The bytes of each span up to its first NUL, one behind the other; where each begins and the last
 * one ends, native int64; and the numbers of those that are not ASCII, native int64.
 */
static PyObject *texts(PyObject *self, PyObject *args)
{
	Py_buffer data, places, lengths;
	PyObject *begins = NULL, *text = NULL, *result = NULL;
	struct offsets odd = {NULL, 0, 0, 0};

	(void)self;
	if (!PyArg_ParseTuple(args, "y*y*y*", &data, &places, &lengths))
		return NULL;
	if (spans_fit(&data, &places, &lengths))
		begins = PyBytes_FromStringAndSize(NULL, places.len + 8);
	if (begins) {
		const int64_t *at = places.buf, *length = lengths.buf;
		int64_t *begin = (int64_t *)PyBytes_AsString(begins);
		Py_ssize_t i, count = places.len / 8;
		int64_t total = 0;

		for (i = 0; i < count && total < INT64_MAX / 2; i++) {
			const char *from = (const char *)data.buf + at[i];
			const char *end = memchr(from, 0, length[i]);

			begin[i] = total;
			total += end ? end - from : length[i];
		}
		begin[count] = total;
		text = i == count ? PyBytes_FromStringAndSize(NULL, total) : PyErr_NoMemory();
		for (i = 0; text && i < count; i++) {
			char *to = PyBytes_AsString(text) + begin[i];
			int64_t size = begin[i + 1] - begin[i];

			memcpy(to, (const char *)data.buf + at[i], size);
			if (!plain(to, size) && append(&odd, i) < 0) {
				PyErr_NoMemory();
				Py_CLEAR(text);
			}
		}
	}
	if (text)
		result = Py_BuildValue("OOy#", begins, text, odd.at ? (char *)odd.at : "",
				       (Py_ssize_t)(odd.count * sizeof(int64_t)));
	Py_XDECREF(begins);
	Py_XDECREF(text);
	PyMem_Free(odd.at);
	PyBuffer_Release(&data);
	PyBuffer_Release(&places);
	PyBuffer_Release(&lengths);
	return result;
}

static PyMethodDef methods[] = {
	{"walk", walk, METH_VARARGS, "Follow a chain of records; see records/pure.py."},
	{"first_chained", first_chained, METH_VARARGS, "Find a chain's start; see records/pure.py."},
	{"split", split, METH_VARARGS, "Records by what wrote them; see records/pure.py."},
	{"join", join, METH_VARARGS, "Copy spans; see records/pure.py."},
	{"gather", gather, METH_VARARGS, "The same fields of many places; see records/pure.py."},
	{"texts", texts, METH_VARARGS, "Characters up to a NUL; see records/pure.py."},
	{NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
	PyModuleDef_HEAD_INIT, "_walk", "The record walk, native.", -1, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__walk(void)
{
	return PyModule_Create(&module);
}
