/* shim_pages.h: what the binding adds to the machine object and to histograms. */

/* --- the machine object ------------------------------------------------------------------------------------------ */

static void mk_py_write_machine(struct mk_machine *m, const struct mk_machine_record *record)
{
	mk_latch_write(&m->latch, m->copies, record, sizeof(*record));
}

static int mk_py_read_machine(const struct mk_machine *m, struct mk_machine_record *record)
{
	return mk_latch_read(&m->latch, m->copies, record, sizeof(*record));
}

static int mk_py_write_instance(struct mk_machine *m, uint32_t id, const struct mk_instance_record *record)
{
	if (id == 0 || id >= MK_INSTANCES)
		return -EINVAL;
	mk_latch_write(&m->instances[id].latch, m->instances[id].copies, record, sizeof(*record));
	return 0;
}

static int mk_py_read_instance(const struct mk_machine *m, uint32_t id, struct mk_instance_record *record)
{
	if (id == 0 || id >= MK_INSTANCES)
		return -EINVAL;
	return mk_latch_read(&m->instances[id].latch, m->instances[id].copies, record, sizeof(*record));
}

static int mk_py_write_image(struct mk_machine *m, uint32_t slot, const struct mk_image_record *record)
{
	if (slot >= MK_IMAGES)
		return -EINVAL;
	mk_latch_write(&m->images[slot].latch, m->images[slot].copies, record, sizeof(*record));
	return 0;
}

static int mk_py_read_image(const struct mk_machine *m, uint32_t slot, struct mk_image_record *record)
{
	if (slot >= MK_IMAGES)
		return -EINVAL;
	return mk_latch_read(&m->images[slot].latch, m->images[slot].copies, record, sizeof(*record));
}

/* --- histograms -------------------------------------------------------------------------------------------------- */

static void mk_py_histogram_record_many(struct mk_histogram *histogram, const uint64_t *values, size_t count)
{
	for (size_t i = 0; i < count; i++)
		mk_histogram_record(histogram, values[i]);
}
