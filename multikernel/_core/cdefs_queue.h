/* Queues of one program; see csrc/include/multikernel/queue.h. */

#define MK_QUEUE_LONGEST ...
#define MK_QUEUE_OUTSIDE ...
#define MK_QUEUE_LANES ...
#define MK_QUEUE_INSIDE ...
#define MK_QUEUE_LARGE ...

struct mk_queue;
struct mk_queue_large {
	uint64_t offset, length;
	...;
};
struct mk_queue_taken {
	uint64_t length;
	struct mk_queue_large large;
	...;
};

int mk_queue_create(uint64_t places);
int mk_queue_open(struct mk_queue **out, int fd);
void mk_queue_close(struct mk_queue *q);
int mk_queue_leave(struct mk_queue *q);
int mk_queue_settle(struct mk_queue *q);
int mk_queue_put(struct mk_queue *q, uint32_t kind, const void *const *pieces, const uint64_t *lengths, unsigned count);
int mk_queue_put_one(struct mk_queue *q, const void *record, uint64_t length);
uint64_t mk_queue_tail(const struct mk_queue *q);
int mk_queue_outside(struct mk_queue *q, uint64_t length, struct mk_queue_large *large);
int mk_queue_fetch(struct mk_queue *q, const struct mk_queue_large *large, void *to);
int mk_queue_map(struct mk_queue *q, const struct mk_queue_large *large, void **base);
int mk_queue_forget(struct mk_queue *q, const struct mk_queue_large *large);
int mk_queue_admit(struct mk_queue *q, uint64_t waiting, int64_t deadline);
int64_t mk_queue_take(struct mk_queue *q, void *to, uint64_t room, struct mk_queue_taken *taken, int64_t deadline);
uint64_t mk_queue_count(struct mk_queue *q);
bool mk_queue_ready(struct mk_queue *q);
int mk_queue_wait_items(struct mk_queue *q, int64_t deadline, bool again);
int mk_queue_wait_room(struct mk_queue *q, uint64_t tail, int64_t deadline, bool again);
int mk_queue_wait_place(struct mk_queue *q, int64_t deadline, bool again);
