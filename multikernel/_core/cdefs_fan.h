/* Of mailboxes and broadcasts, what Python sees. As cdefs.h. */

struct mk_py_mailbox;
struct mk_py_mailbox *mk_py_mailbox_new(int policy);
void mk_py_mailbox_drop(struct mk_py_mailbox *m);
int mk_py_mailbox_close(struct mk_py_mailbox *m);
void mk_py_mailbox_leave(struct mk_py_mailbox *m);
int mk_py_mailbox_add(struct mk_py_mailbox *m, struct mk_receiver **rx, uint32_t number);
int mk_py_mailbox_watch(struct mk_py_mailbox *m, int fd);
void mk_py_mailbox_unwatch(struct mk_py_mailbox *m, int fd);
int mk_py_mailbox_peek(struct mk_py_mailbox *m, struct mk_message *messages, int limit, int64_t deadline);
int mk_py_mailbox_give(struct mk_py_mailbox *m, int ended_well);
int mk_py_mailbox_enter(struct mk_py_mailbox *m);
int64_t mk_py_mailbox_waiting(struct mk_py_mailbox *m);
int mk_py_mailbox_over(struct mk_py_mailbox *m);
void mk_py_mailbox_recover(struct mk_py_mailbox *m);
int mk_py_mailbox_event(struct mk_py_mailbox *m);
int mk_py_mailbox_numbers(struct mk_py_mailbox *m, uint32_t *numbers, int room);
uint32_t mk_py_mailbox_number(struct mk_py_mailbox *m);
uint32_t mk_py_mailbox_bad(struct mk_py_mailbox *m, uint64_t *value);

struct mk_roster;
int mk_broadcast_object(uint64_t capacity, bool overwrites);
int mk_roster_create(struct mk_roster **out);
int mk_roster_add(struct mk_roster *roster, int producer_fd, int consumer_fd, uint64_t *number);
void mk_roster_close(struct mk_roster *roster);
void mk_roster_drop(struct mk_roster *roster);

struct mk_py_broadcast;
int mk_py_broadcast_claim(struct mk_py_broadcast **out, int producer_fd, int roster_fd, int maker, int policy, uint32_t *why);
void mk_py_broadcast_drop(struct mk_py_broadcast **b);
int mk_py_broadcast_close(struct mk_py_broadcast *b);
void mk_py_broadcast_caught_up(struct mk_py_broadcast *b);
void mk_py_broadcast_leave(struct mk_py_broadcast *b);
int mk_py_broadcast_add(struct mk_py_broadcast *b, int consumer_fd, int socket, uint32_t number, uint32_t *why);
int mk_py_broadcast_send(struct mk_py_broadcast *b, const void *const *payloads, const uint64_t *lengths, int64_t count, int64_t deadline, int64_t *done);
int mk_py_broadcast_send_one(struct mk_py_broadcast *b, const char *payload, uint64_t length, int64_t deadline);
int mk_py_broadcast_receivers(struct mk_py_broadcast *b);
uint64_t mk_py_broadcast_longest(struct mk_py_broadcast *b);
uint32_t mk_py_broadcast_bad(struct mk_py_broadcast *b, uint64_t *value);

struct mk_py_follower;
struct mk_py_follower *mk_py_follower_new(struct mk_receiver **rx, uint64_t number, int policy);
void mk_py_follower_drop(struct mk_py_follower *f);
int mk_py_follower_close(struct mk_py_follower *f);
void mk_py_follower_leave(struct mk_py_follower *f);
int mk_py_follower_peek(struct mk_py_follower *f, struct mk_message *messages, int limit, int64_t deadline);
int mk_py_follower_give(struct mk_py_follower *f, int ended_well);
uint64_t mk_py_follower_missed(struct mk_py_follower *f);
uint64_t mk_py_follower_capacity(struct mk_py_follower *f);
int64_t mk_py_follower_waiting(struct mk_py_follower *f);
int mk_py_follower_over(struct mk_py_follower *f);
int mk_py_follower_event(struct mk_py_follower *f);
int mk_py_follower_inspect(struct mk_py_follower *f, struct mk_py_view *view);
