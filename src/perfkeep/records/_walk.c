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

enum { RECORD_LOST = 2, RECORD_THROTTLE = 5, RECORD_SAMPLE = 9, RECORD_LOST_SAMPLES = 13, LAST_TYPE = 63 };

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

static int append_offset(PyObject *list, Py_ssize_t at)
{
	PyObject *offset = PyLong_FromSsize_t(at);
	int result = offset ? PyList_Append(list, offset) : -1;

	Py_XDECREF(offset);
	return result;
}

/*
 * walk(data, start, end, every) -> (end of the chain, records, lost, offset of each every-th,
 *                                   offset of each THROTTLE)
 */
static PyObject *walk(PyObject *self, PyObject *args)
{
	Py_buffer view;
	Py_ssize_t start, end, every, at, count = 0;
	uint64_t lost = 0;
	PyObject *marks = NULL, *throttles = NULL, *result = NULL;

	(void)self;
	if (!PyArg_ParseTuple(args, "y*nnn", &view, &start, &end, &every))
		return NULL;
	if (end > view.len)
		end = view.len;
	if (end < 0)
		end = 0; /* or end - at could overflow */
	if (start < 0 || every < 1) {
		PyErr_SetString(PyExc_ValueError, "start must be >= 0 and every >= 1");
		goto release;
	}
	marks = PyList_New(0);
	throttles = PyList_New(0);
	if (!marks || !throttles)
		goto release;
	for (at = start; end - at >= 8; count++) {
		struct header h = header_at(view.buf, at);

		if (!plausible(h, at, end))
			break;
		if (count % every == 0 && append_offset(marks, at) < 0)
			goto release;
		if (h.type == RECORD_THROTTLE && append_offset(throttles, at) < 0)
			goto release;
		lost += lost_in(view.buf, at, h);
		at += h.size;
	}
	result = Py_BuildValue("nnKOO", at, count, (unsigned long long)lost, marks, throttles);
release:
	Py_XDECREF(marks);
	Py_XDECREF(throttles);
	PyBuffer_Release(&view);
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
 * first_chained(data, start, ids, id_at = 8, id_back = 8) -> offset
 *
 * The earliest offset >= start from which the chain of records is valid and ends exactly at the
 * end of data. ids: sorted u64 words; when not empty, every record must carry one of them: a
 * sample at id_at, any other record id_back bytes before its end.
 *
 * Every slot of 8 bytes is looked at once, from the end: it is good when a record there ends at
 * a slot that is good.
 */
static PyObject *first_chained(PyObject *self, PyObject *args)
{
	Py_buffer view, ids;
	Py_ssize_t start, slots, slot, first, id_at = 8, id_back = 8;
	unsigned char *good;

	(void)self;
	if (!PyArg_ParseTuple(args, "y*ny*|nn", &view, &start, &ids, &id_at, &id_back))
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
			Py_ssize_t place = h.type == RECORD_SAMPLE ? id_at : h.size - id_back;

			if (place < 8 || place > h.size - 8 ||
			    index_of(word_at(view.buf, at + place), ids.buf, ids.len / 8) < 0)
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

/* Offsets of records, as many as there are. `holder` is a bytearray whose memory `at` is. */
struct offsets {
	PyObject *holder;
	int64_t *at;
	Py_ssize_t count, room;
};

static int append(struct offsets *some, int64_t at)
{
	if (some->count == some->room) {
		Py_ssize_t room = some->room ? some->room * 2 : 64;

		if (!some->holder)
			some->holder = PyByteArray_FromStringAndSize(NULL, 0);
		if (!some->holder || PyByteArray_Resize(some->holder, room * sizeof(*some->at)) < 0)
			return -1;
		some->at = (int64_t *)PyByteArray_AsString(some->holder);
		some->room = room;
	}
	some->at[some->count++] = at;
	return 0;
}

/* Gives the bytearray away. */
static PyObject *taken(struct offsets *some)
{
	PyObject *holder = some->holder;

	some->holder = NULL;
	if (!holder)
		return PyByteArray_FromStringAndSize(NULL, 0);
	if (PyByteArray_Resize(holder, some->count * sizeof(*some->at)) < 0)
		Py_CLEAR(holder);
	return holder;
}

/*
 * split(data, start, end, id_at, ids, kinds, count) -> (end of the chain, lost, [offsets])
 *
 * The records of a file, by what wrote them: samples of kind 0 … count - 1, other records, samples
 * of an unknown id. Offsets are native int64. id_at: where in a sample its id is; < 0: every sample
 * is of kind 0. ids: sorted u64 words, and kinds: for each a u32.
 */
static PyObject *split(PyObject *self, PyObject *args)
{
	Py_buffer view, ids, kinds;
	Py_ssize_t start, end, id_at, count, at, i;
	uint64_t lost = 0;
	struct offsets *found;
	PyObject *lists = NULL, *result = NULL;

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
		if (append(&found[bucket], at) < 0)
			goto done;
		at += h.size;
	}
	lists = PyList_New(count + 2);
	for (i = 0; lists && i < count + 2; i++) {
		PyObject *one = taken(&found[i]);

		if (!one || PyList_SetItem(lists, i, one) < 0)
			Py_CLEAR(lists);
	}
	if (lists)
		result = Py_BuildValue("nKN", at, (unsigned long long)lost, lists);
done:
	for (i = 0; i < count + 2; i++)
		Py_XDECREF(found[i].holder);
	PyMem_Free(found);
release:
	PyBuffer_Release(&view);
	PyBuffer_Release(&ids);
	PyBuffer_Release(&kinds);
	return result;
}

/* What a part of a sample begins with, and so how long it is; the numbers are records/pure_decode.py's. */
enum part_kind { WORDS, LIST, BLOB, REGISTERS, STACK };

/*
 * a, b: WORDS: so many words; LIST: a word that counts what follows a bytes more, each of b bytes;
 * BLOB: a u32 that counts bytes, at least a; REGISTERS: a word, and a words more if it is not 0;
 * STACK: a word that counts bytes, and if it is not 0 a word more, which says how many of them count.
 */
struct part {
	int64_t kind, a, b;
};

/* How long a part is that begins at `from`, of which `room` bytes are left; -1: longer than that. */
static int64_t extent(struct part part, const unsigned char *from, int64_t room, int64_t *count)
{
	uint64_t n, read;
	uint32_t size;

	*count = 0;
	if (part.kind == WORDS)
		return part.a <= room / 8 ? part.a * 8 : -1;
	if (part.kind == BLOB) {
		if (room < 4)
			return -1;
		memcpy(&size, from, 4);
		*count = size;
		return size <= room - 4 && size >= part.a ? 4 + (int64_t)size : -1;
	}
	if (room < 8)
		return -1;
	n = word_at(from, 0);
	room -= 8;
	if (part.kind == REGISTERS) {
		*count = n ? part.a : 0;
		return *count <= room / 8 ? 8 + *count * 8 : -1;
	}
	if (part.kind == LIST) {
		if (part.a > room || n > (uint64_t)((room - part.a) / part.b))
			return -1;
		*count = n;
		return 8 + part.a + *count * part.b;
	}
	if (!n)
		return 8;
	if (n > (uint64_t)room || room - (int64_t)n < 8)
		return -1;
	read = word_at(from, 8 + n);
	*count = read < n ? read : n;
	return 16 + (int64_t)n;
}

/* An integer in a part, or, with part -1, in the record's header. */
struct field {
	int32_t part, offset, width;
};

enum { MOST_FIELDS = 1024, MOST_PARTS = 32, WIDEST = 8, BLOCK = 128 };

static int possible(const struct part *part, Py_ssize_t parts, const struct field *field,
		    Py_ssize_t fields)
{
	Py_ssize_t i;

	for (i = 0; i < parts; i++) {
		int64_t most = part[i].kind == BLOB ? UINT32_MAX : UINT16_MAX;

		if (part[i].kind < WORDS || part[i].kind > STACK || part[i].a < 0 ||
		    part[i].a > most || (part[i].kind == LIST && part[i].b < 1))
			return 0;
	}
	for (i = 0; i < fields; i++) {
		/* What a part has at the least. */
		int64_t room = 8;

		if (field[i].part < -1 || field[i].part >= parts || field[i].offset < 0 ||
		    field[i].width < 1 || field[i].width > WIDEST)
			return 0;
		if (field[i].part >= 0) {
			struct part of = part[field[i].part];

			if (of.kind == WORDS)
				room = of.a * 8;
			else if (of.kind == BLOB)
				room = 4 + of.a;
			else if (of.kind == LIST)
				room = 8 + of.a;
		}
		if (room - field[i].width < field[i].offset)
			return 0;
	}
	return 1;
}

#define EACH_ROW(width) \
	_Pragma("GCC unroll 8") \
	for (row = 0; row < rows; row++) \
		memcpy(to + row * (width), from + at[row], (width))

/* One field of some rows. Fixed sizes become single moves. */
static void gather(const char *from, const int64_t *at, Py_ssize_t rows, int32_t width, char *to)
{
	Py_ssize_t row;

	if (width == 8) {
		EACH_ROW(8);
	} else if (width == 4) {
		EACH_ROW(4);
	} else if (width == 2) {
		EACH_ROW(2);
	} else if (width == 1) {
		EACH_ROW(1);
	} else {
		for (row = 0; row < rows; row++)
			memcpy(to + row * width, from + at[row], width);
	}
}

/* Where the parts of one sample begin and what they count; 0: it does not fit its record. */
static int lay_out(const Py_buffer *data, int64_t at, const struct part *part, Py_ssize_t parts,
		   int64_t *start, int64_t *count, Py_ssize_t stride)
{
	int64_t end, length;
	struct header h;
	Py_ssize_t i;

	if (at < 0 || at > data->len - 8)
		return 0;
	h = header_at(data->buf, at);
	if (h.size < 8 || h.size > data->len - at)
		return 0;
	end = at + h.size;
	at += 8;
	for (i = 0; i < parts; i++) {
		length = extent(part[i], (unsigned char *)data->buf + at, end - at, &count[i * stride]);
		if (length < 0)
			return 0;
		start[i * stride] = at;
		at += length;
	}
	return 1;
}

/*
 * decode(data, places, parts, fields, starts, counts, fits, columns) -> whether all fit
 *
 * Where in each sample its parts begin, and what they count; and the same fields of each, each into
 * a column of its own. places: of the records; parts: three int64 each, and fields: three int32
 * each, see above. starts, counts: a row of native int64 for each part; fits: a byte for each
 * sample; columns: a tuple of writable buffers. Where a sample does not fit its record, or lies
 * outside the data, only `fits` is to be used. In blocks that stay in the cache.
 */
static PyObject *decode(PyObject *self, PyObject *args)
{
	Py_buffer data, places, program, wanted, starts, counts, fits, columns[MOST_FIELDS];
	Py_ssize_t rows, parts, fields, begin, row, i, taken = 0;
	PyObject *outs, *result = NULL;
	const struct field *field;
	const int64_t *at;
	int all = 1;

	(void)self;
	if (!PyArg_ParseTuple(args, "y*y*y*y*w*w*w*O!", &data, &places, &program, &wanted, &starts,
			      &counts, &fits, &PyTuple_Type, &outs))
		return NULL;
	at = places.buf;
	field = wanted.buf;
	rows = places.len / 8;
	parts = program.len / sizeof(struct part);
	fields = wanted.len / sizeof(*field);
	if (parts > MOST_PARTS || fields > MOST_FIELDS || PyTuple_Size(outs) != fields ||
	    !possible(program.buf, parts, field, fields) || starts.len != parts * rows * 8 ||
	    counts.len != starts.len || fits.len != rows) {
		PyErr_SetString(PyExc_ValueError, "a part or a field that cannot be, or not the room for all");
		goto release;
	}
	for (; taken < fields; taken++) {
		if (PyObject_GetBuffer(PyTuple_GetItem(outs, taken), &columns[taken], PyBUF_WRITABLE) < 0)
			goto release;
		if (columns[taken].len != rows * field[taken].width) {
			PyBuffer_Release(&columns[taken]);
			PyErr_SetString(PyExc_ValueError, "a column has not the room for its field");
			goto release;
		}
	}
	for (begin = 0; begin < rows; begin += BLOCK) {
		Py_ssize_t some = rows - begin < BLOCK ? rows - begin : BLOCK;

		for (row = begin; row < begin + some; row++) {
			int fit = lay_out(&data, at[row], program.buf, parts, (int64_t *)starts.buf + row,
					  (int64_t *)counts.buf + row, rows);

			((char *)fits.buf)[row] = fit;
			all &= fit;
		}
		for (i = 0; all && i < fields; i++) {
			const int64_t *from = field[i].part < 0 ? at :
					      (int64_t *)starts.buf + field[i].part * rows;

			gather((char *)data.buf + field[i].offset, from + begin, some, field[i].width,
			       (char *)columns[i].buf + begin * field[i].width);
		}
	}
	result = PyBool_FromLong(all);
release:
	while (taken--)
		PyBuffer_Release(&columns[taken]);
	PyBuffer_Release(&data);
	PyBuffer_Release(&places);
	PyBuffer_Release(&program);
	PyBuffer_Release(&wanted);
	PyBuffer_Release(&starts);
	PyBuffer_Release(&counts);
	PyBuffer_Release(&fits);
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

enum { FEW = 64 };

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
			const char *from = (char *)data.buf + at[i];

			/* Fixed sizes are single moves; the next span writes over what is too much. */
			if (length[i] <= FEW && room >= FEW && data.len - at[i] >= FEW)
				memcpy(to, from, FEW);
			else
				memcpy(to, from, length[i]);
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
	PyObject *begins = NULL, *text = NULL, *strange = NULL, *result = NULL;
	struct offsets odd = {NULL, NULL, 0, 0};

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
			if (!plain(to, size) && append(&odd, i) < 0)
				Py_CLEAR(text);
		}
	}
	if (text)
		strange = taken(&odd);
	if (strange)
		result = PyTuple_Pack(3, begins, text, strange);
	Py_XDECREF(begins);
	Py_XDECREF(text);
	Py_XDECREF(strange);
	Py_XDECREF(odd.holder);
	PyBuffer_Release(&data);
	PyBuffer_Release(&places);
	PyBuffer_Release(&lengths);
	return result;
}

enum { SHORT = 16 };

/*
 * spell(texts, begins, numbers) -> (offsets, bytes)
 *
 * The texts of these numbers, one behind the other, and where each begins and the last one ends.
 * begins: of each text, and where the last one ends; all native int64.
 */
static PyObject *spell(PyObject *self, PyObject *args)
{
	Py_buffer texts, begins, numbers;
	PyObject *offsets = NULL, *text = NULL, *result = NULL;
	const int64_t *begin, *number;
	Py_ssize_t known, rows, row;
	int64_t total = 0, *at;

	(void)self;
	if (!PyArg_ParseTuple(args, "y*y*y*", &texts, &begins, &numbers))
		return NULL;
	begin = begins.buf;
	number = numbers.buf;
	known = begins.len / 8 - 1;
	rows = numbers.len / 8;
	for (row = 0; row < known; row++)
		if (begin[row] < 0 || begin[row] > begin[row + 1] || begin[row + 1] > texts.len)
			break;
	if (row < known) {
		PyErr_SetString(PyExc_IndexError, "a text lies outside the texts");
		goto release;
	}
	offsets = PyBytes_FromStringAndSize(NULL, (rows + 1) * 8);
	if (!offsets)
		goto release;
	at = (int64_t *)PyBytes_AsString(offsets);
	for (row = 0; row < rows; row++) {
		if (number[row] < 0 || number[row] >= known) {
			PyErr_SetString(PyExc_IndexError, "there is no text of this number");
			goto release;
		}
		at[row] = total;
		total += begin[number[row] + 1] - begin[number[row]];
	}
	at[rows] = total;
	text = PyBytes_FromStringAndSize(NULL, total);
	if (text) {
		char *to = PyBytes_AsString(text);

		for (row = 0; row < rows; row++) {
			int64_t from = begin[number[row]], size = at[row + 1] - at[row];

			/* A fixed size is a single move; the next text writes over what is too much. */
			if (size <= SHORT && from + SHORT <= texts.len && at[row] + SHORT <= total)
				memcpy(to + at[row], (char *)texts.buf + from, SHORT);
			else
				memcpy(to + at[row], (char *)texts.buf + from, size);
		}
		result = PyTuple_Pack(2, offsets, text);
	}
release:
	Py_XDECREF(offsets);
	Py_XDECREF(text);
	PyBuffer_Release(&texts);
	PyBuffer_Release(&begins);
	PyBuffer_Release(&numbers);
	return result;
}

/* From `ns` on it is so of `whose`. */
struct change {
	int64_t whose, ns, value;
};

/* What the last look-up of one found, and for which times that holds. */
struct known {
	int64_t whose, from, until, value;
};

enum { REMEMBERED = 64, NOBODY = -1 };

/* The last change of one until a time; where no time is known, its first. */
static struct known look_up(const struct change *all, Py_ssize_t count, int64_t whose, int64_t ns,
			    int timed)
{
	struct known found = {whose, INT64_MIN, INT64_MAX, NOBODY};
	Py_ssize_t low = 0, high = count;

	while (low < high) {
		Py_ssize_t middle = low + (high - low) / 2;

		if (all[middle].whose < whose || (all[middle].whose == whose && all[middle].ns <= ns))
			low = middle + 1;
		else
			high = middle;
	}
	if (low && all[low - 1].whose == whose) {
		found.value = all[low - 1].value;
		found.from = all[low - 1].ns;
		if (low < count && all[low].whose == whose)
			found.until = all[low].ns;
	} else if (low < count && all[low].whose == whose) {
		if (!timed)
			found.value = all[low].value;
		found.until = all[low].ns;
	}
	return found;
}

/*
 * latest(changes, whose, times, out)
 *
 * The value in force for each one at its time. All are native int64: changes: whose, ns and value of
 * each, sorted; times: as many as whose, or none, and then the first change of each counts; out: the
 * values, -1 of one without a change until then.
 */
static PyObject *latest(PyObject *self, PyObject *args)
{
	Py_buffer changes, ids, times, out;
	PyObject *result = NULL;

	(void)self;
	if (!PyArg_ParseTuple(args, "y*y*y*w*", &changes, &ids, &times, &out))
		return NULL;
	if (ids.len % 8 || out.len != ids.len || (times.len && times.len != ids.len)) {
		PyErr_SetString(PyExc_ValueError, "every row needs a time, if any has one, and room");
	} else {
		const struct change *all = changes.buf;
		const int64_t *whose = ids.buf, *at = times.buf;
		Py_ssize_t count = changes.len / sizeof(*all), rows = ids.len / 8, row;
		struct known some[REMEMBERED];
		int64_t *to = out.buf;

		for (row = 0; row < REMEMBERED; row++)
			some[row] = (struct known){0, 1, 0, 0}; /* holds at no time */
		for (row = 0; row < rows; row++) {
			int64_t ns = times.len ? at[row] : INT64_MIN;
			struct known *one = &some[(uint64_t)whose[row] % REMEMBERED];

			/* Without a later change the end is no end. */
			if (one->whose != whose[row] || ns < one->from ||
			    (ns >= one->until && one->until != INT64_MAX))
				*one = look_up(all, count, whose[row], ns, times.len > 0);
			to[row] = one->value;
		}
		result = Py_NewRef(Py_None);
	}
	PyBuffer_Release(&changes);
	PyBuffer_Release(&ids);
	PyBuffer_Release(&times);
	PyBuffer_Release(&out);
	return result;
}

/* Source: "The Arrow C data interface" of the Arrow format. */
struct ArrowArray {
	int64_t length, null_count, offset, n_buffers, n_children;
	const void **buffers;
	struct ArrowArray **children;
	struct ArrowArray *dictionary;
	void (*release)(struct ArrowArray *);
	void *private_data;
};

/* Whoever lets go of an array may do it while a Python exception is on its way. */
static void release_array(struct ArrowArray *array)
{
	PyObject *holder = array->private_data;
	int64_t i;

	for (i = 0; i < array->n_children; i++)
		if (array->children[i]->release)
			array->children[i]->release(array->children[i]);
	array->release = NULL;
	if (Py_IsInitialized()) {
		PyGILState_STATE state = PyGILState_Ensure();

		Py_DECREF(holder);
		PyGILState_Release(state);
	}
}

static PyObject *hold(PyObject *self, PyObject *args)
{
	struct ArrowArray *arrays;
	unsigned long long address;
	Py_ssize_t count, i;
	PyObject *holder;

	if (!PyArg_ParseTuple(args, "KnO", &address, &count, &holder))
		return NULL;
	arrays = (struct ArrowArray *)(uintptr_t)address;
	for (i = 0; i < count; i++) {
		arrays[i].release = release_array;
		arrays[i].private_data = Py_NewRef(holder);
	}
	Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
	{"walk", walk, METH_VARARGS, "Follow a chain of records; see records/pure.py."},
	{"first_chained", first_chained, METH_VARARGS, "Find a chain's start; see records/pure.py."},
	{"split", split, METH_VARARGS, "Records by what wrote them; see records/pure.py."},
	{"decode", decode, METH_VARARGS, "Fields and parts of samples; see records/pure_decode.py."},
	{"join", join, METH_VARARGS, "Copy spans; see records/pure.py."},
	{"texts", texts, METH_VARARGS, "Characters up to a NUL; see records/pure.py."},
	{"spell", spell, METH_VARARGS, "Texts by their numbers; see records/pure.py."},
	{"latest", latest, METH_VARARGS, "What was so at a time; see records/pure.py."},
	{"hold", hold, METH_VARARGS, "Have Arrow arrays keep something alive; see records/__init__.py."},
	{NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
	PyModuleDef_HEAD_INIT, "_walk", "The record walk, native.", -1, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__walk(void)
{
	return PyModule_Create(&module);
}
