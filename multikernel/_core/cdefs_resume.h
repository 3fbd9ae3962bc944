int mk_py_sender_succeed(struct mk_sender *tx, int predecessor, uint32_t *why);
int mk_py_receiver_succeed(struct mk_receiver *rx, int predecessor, uint32_t *why);
int mk_py_sender_resume(struct mk_sender *tx, int consumer, int pidfd, uint32_t *why);
int mk_py_receiver_resume(struct mk_receiver *rx, int producer, int pidfd, uint32_t *why);
int mk_py_due(struct mk_end *end);
int mk_py_redelivered(struct mk_receiver *rx);
int mk_py_skip(struct mk_receiver *rx, struct mk_message *message);
int mk_py_say_seen(struct mk_receiver *rx);
int mk_py_watch_fate(struct mk_end *end, const struct mk_machine *machine, uint32_t id);
