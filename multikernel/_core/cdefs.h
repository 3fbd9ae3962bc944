/* What Python sees of the core. Plain declarations for cffi: constants are "...", opaque structs have no fields,
 * and of the others the compiler checks offsets and sizes. The real thing is in csrc/include/multikernel/. */

#define MK_ABI_VERSION ...
#define MK_VECTORS ...
#define MK_INSTANCES ...
#define MK_IMAGES ...
#define MK_CLIENT_ID ...
#define MK_CPU_WORDS ...
#define MK_CONSOLE_LINE_MAX ...
#define MK_CONSOLE_PARTIAL ...
#define MK_NAME_SIZE ...
#define MK_CMDLINE_SIZE ...
#define MK_END_TEXT ...
#define MK_CONSOLE_TAIL ...
#define MK_INSTANCE_CORE ...
#define MK_INSTANCE_CRASHED ...
#define MK_PARKED_MODE ...
#define MK_PY_HEAD_AT ...
#define MK_PY_TAIL_AT ...
#define MK_PY_SEEN_AT ...
#define MK_PY_RECEIVER_PARKED_AT ...
#define MK_PY_RECEIVER_STATE_AT ...
static const int MK_PARKED_FUTEX;
static const int MK_END_CLOSED;
#define MK_STATUS_LINKS ...
#define MK_CAPACITY_MIN ...
#define MK_CAPACITY_MAX ...
#define MK_MSG_IO ...
#define MK_MSG_RESOURCE ...
#define MK_MSG_SYSTEM ...
#define MK_MSG_USER ...
#define MK_MSG_NETWORK ...
#define MK_SYS_SHUTDOWN ...
#define MK_SHUTDOWN_GRACEFUL ...

enum mk_kind { MK_KIND_PRODUCER, MK_KIND_CONSUMER, MK_KIND_STATUS, MK_KIND_CONSOLE, MK_KIND_MACHINE, MK_KIND_ROSTER, ... };
enum mk_refusal { MK_REFUSED_NOT, MK_REFUSED_KIND_OF_FILE, MK_REFUSED_SEALS, MK_REFUSED_SHORT, MK_REFUSED_MAGIC, MK_REFUSED_ABI, MK_REFUSED_KIND, MK_REFUSED_SIZE, MK_REFUSED_CAPACITY, MK_REFUSED_ELEMENT, MK_REFUSED_OWNER, ... };
enum mk_bad { MK_BAD_NOTHING, MK_BAD_HEAD, MK_BAD_TAIL, MK_BAD_LENGTH, MK_BAD_NUMBER, ... };
enum mk_wait_policy { MK_WAIT_ADAPTIVE, MK_WAIT_SPIN, MK_WAIT_PARK, ... };

struct mk_object { uint32_t abi, kind; uint64_t size, capacity; uint32_t data_offset, element, flags, owner_id; uint64_t epoch; uint32_t owner_pid; ...; };
struct mk_message { const void *payload; uint64_t id; uint32_t length; uint16_t type, subtype; ...; };
struct mk_end { ...; };
struct mk_sender { ...; };
struct mk_receiver { ...; };
struct mk_wait_set;
struct mk_counters { ...; };
struct mk_status { ...; };
struct mk_console;
struct mk_console_writer;
struct mk_machine { ...; };
struct mk_console_line { uint32_t length; uint16_t level, flags; uint64_t time; };

struct mk_counters_copy { uint64_t sent, sent_bytes, received, received_bytes, ipis_sent, ipis_received, spins, parks, wakes, spurious, stalls; };
struct mk_py_view { uint64_t capacity, used, bad_value, epoch; uint32_t bad, peer_pid, peer_id, element; int gone, claimed_here, hung_up; ...; };

/* memory */
uint64_t mk_page_size(void);
int mk_object_create(const char *name, struct mk_object header);
int mk_object_reopen(int fd);
int mk_object_seal(int fd);
int mk_object_check(int fd, uint32_t kind, int owned, struct mk_object *header, uint32_t *why);
int mk_object_map(int fd, uint64_t size, int writable, void **base);
void mk_object_unmap(void *base, uint64_t size);
uint32_t mk_fork_generation(void);

/* lanes */
int mk_lane_object(uint32_t kind, const char *name, uint64_t capacity, uint32_t element, uint32_t owner_id, uint64_t epoch);
int mk_sender_claim(struct mk_sender **out, int producer_fd, struct mk_counters *counters, uint32_t *why);
int mk_receiver_claim(struct mk_receiver **out, int consumer_fd, struct mk_counters *counters, uint32_t *why);
int mk_sender_attach(struct mk_sender *tx, int consumer_fd, int owned, int socket, int pidfd, uint32_t *why);
int mk_receiver_attach(struct mk_receiver *rx, int producer_fd, int owned, int socket, int pidfd, uint32_t *why);

int mk_py_close(struct mk_end *end);
void mk_py_drop_sender(struct mk_sender **tx);
void mk_py_drop_receiver(struct mk_receiver **rx);
void mk_py_recover_sender(struct mk_sender *tx);
void mk_py_recover_receiver(struct mk_receiver *rx);
struct mk_end *mk_py_sender_end(struct mk_sender *tx);
struct mk_end *mk_py_receiver_end(struct mk_receiver *rx);
int mk_py_send(struct mk_sender *tx, uint16_t type, uint16_t subtype, uint64_t id, const char *payload, uint64_t length, int64_t deadline);
struct mk_py_batch { int64_t records, pieces; int why; };
void mk_py_send_many(struct mk_sender *tx, uint16_t type, uint16_t subtype, uint64_t id, const void *const *pieces, const uint64_t *lengths, const uint32_t *counts, int64_t count, int64_t deadline, struct mk_py_batch *done);
int64_t mk_py_send_elements(struct mk_sender *tx, const char *elements, int64_t count, int64_t deadline, int *why);
int mk_py_reserve(struct mk_sender *tx, uint64_t n, void **slot, int64_t deadline);
int mk_py_commit(struct mk_sender *tx, uint64_t n, uint16_t type, uint16_t subtype, uint64_t id);
int mk_py_abandon(struct mk_sender *tx);
int mk_py_ipi(struct mk_sender *tx, unsigned vector);
int mk_py_peek(struct mk_receiver *rx, struct mk_message *messages, int limit, uint64_t bytes, int64_t deadline);
int64_t mk_py_peek_elements(struct mk_receiver *rx, int64_t limit, const void **elements, int64_t deadline);
int mk_py_release(struct mk_receiver *rx);
int mk_py_unpeek(struct mk_receiver *rx);
int mk_py_hold(struct mk_receiver *rx);
int mk_py_done(struct mk_receiver *rx);
int mk_py_take_ipi(struct mk_receiver *rx, unsigned from, unsigned *vector, uint64_t *count);
int64_t mk_py_waiting(struct mk_receiver *rx);
void mk_py_mask_all(struct mk_receiver *rx);
int mk_py_mask(struct mk_receiver *rx, unsigned vector, int masked);
int mk_py_wait(struct mk_end *end, int64_t deadline);
int mk_py_settle(struct mk_end *end);
int mk_py_ready(struct mk_end *end);
int mk_py_peer_closed(struct mk_end *end);
int mk_py_peer_gone(struct mk_end *end);
int mk_py_counters(struct mk_end *end, struct mk_counters *counters);
int mk_py_wait_counters(struct mk_end *end, struct mk_counters *counters);
int mk_py_read_counters(struct mk_end *end, struct mk_counters_copy *copy);
int mk_py_event(struct mk_end *end);
void mk_py_inspect(struct mk_end *end, struct mk_py_view *view);
int mk_py_policy(struct mk_end *end, int policy);
const void *mk_py_hot_core(void);

#define POLLIN ...
#define POLLNVAL ...
struct mk_wait_set *mk_wait_set_new(void);
void mk_wait_set_free(struct mk_wait_set *set);
int mk_wait_set_add(struct mk_wait_set *set, struct mk_end *end);
int mk_wait_set_remove(struct mk_wait_set *set, struct mk_end *end);
int mk_py_look(struct mk_end **ends, int count, unsigned char *ready);
struct pollfd { int fd; short events, revents; ...; };
int mk_py_set_wait(struct mk_wait_set *set, struct pollfd *fds, int fd_count, unsigned char *ready, int found, int64_t deadline);

/* status */
struct mk_link_copy { uint32_t used, peer; uint64_t capacity; struct mk_counters_copy counters; };
struct mk_status_copy { uint32_t owner_id, owner_pid, phase, cpu, awake; uint64_t epoch, heartbeat; uint64_t phase_time[8]; struct mk_counters_copy counters; uint64_t ipi[...]; struct mk_link_copy links[...]; ...; };
int mk_status_create(uint32_t owner_id, uint64_t epoch, struct mk_status **out);
void mk_status_free(struct mk_status *status);
void mk_status_phase(struct mk_status *status, uint32_t phase);
void mk_status_reached(struct mk_status *status, uint32_t phase, uint64_t time);
void mk_status_beat(struct mk_status *status);
void mk_status_awake(struct mk_status *status, uint32_t awake);
void mk_status_ipi(struct mk_status *status, uint32_t vector, uint64_t count);
struct mk_counters *mk_status_link(struct mk_status *status, uint32_t peer, uint64_t capacity);
void mk_status_unlink(struct mk_status *status, struct mk_counters *counters);
struct mk_counters *mk_status_counters(struct mk_status *status);
void mk_status_read(const struct mk_status *status, struct mk_status_copy *copy);

/* console */
int mk_console_create(uint64_t capacity, uint32_t owner_id, uint64_t epoch, struct mk_console_writer **out);
void mk_console_write(struct mk_console_writer *writer, uint16_t level, const char *text, size_t length);
int mk_console_drain(struct mk_console_writer *writer, int fd);
void mk_console_finish(struct mk_console_writer *writer);
int mk_console_open(int fd, const struct mk_console **console, struct mk_object *header, uint32_t *why);
void mk_console_close(const struct mk_console *console, const struct mk_object *header);
uint32_t mk_console_copied(const struct mk_console *console);
int mk_console_next(const struct mk_console *console, const struct mk_object *header, uint64_t *position, struct mk_console_line *line, char *text);

/* the machine object */
struct mk_instance_record {
    uint32_t used, id, state, pid; uint64_t epoch, state_time, memory, named, initrd; uint32_t memories, due, image, exclusive; uint64_t cpus[...];
    char name[...]; uint32_t end_code, end_signal, end_forced; char end_reason[...]; char end_traceback[...]; char cmdline[...]; char console_tail[...];
    uint64_t restart_at, watchdog, hung_since, panic, claimed; uint32_t restart, restarts, restart_limit, on_hang, crash_image, flags; ...;
};
struct mk_image_record { uint32_t used, id; uint64_t size; uint32_t users; char kind[...]; char digest[...]; char signature[...]; char name[...];
    char imports[...]; ...; };
struct mk_machine_record { char name[...]; uint32_t host_pid, persistent, clients, trusted; uint64_t boot_time, wall_time, memory, memory_used; uint64_t cpus[...]; ...; };
void mk_py_write_machine(struct mk_machine *m, const struct mk_machine_record *record);
int mk_py_read_machine(const struct mk_machine *m, struct mk_machine_record *record);
int mk_py_write_instance(struct mk_machine *m, uint32_t id, const struct mk_instance_record *record);
int mk_py_read_instance(const struct mk_machine *m, uint32_t id, struct mk_instance_record *record);
int mk_py_write_image(struct mk_machine *m, uint32_t slot, const struct mk_image_record *record);
int mk_py_read_image(const struct mk_machine *m, uint32_t slot, struct mk_image_record *record);
