/*
 * sink - an SMTP server that takes everything, stands in for SES, and writes down what it took.
 *
 *   sink -s STATE -l LOG [-p PORT] [-c CERT -k KEY] [-F n] [-X n] [-B n]
 *
 * It listens on 127.0.0.1 and offers PIPELINING and, with a certificate, STARTTLS; mail without TLS and
 * AUTH is refused then. Any user name and password will do.
 *
 *   LOG    one line a message: its X-Bench-Id, the checksum of its body, the length of its body; of one
 *          that is answered 554: its X-Bench-Id, "refused", 0
 *   STATE  a page of 64-bit numbers that others map: messages, bytes, time of the last message
 *          (CLOCK_MONOTONIC, ns), connections so far, STARTTLS, AUTH, connections now, port
 *   -F n   every n-th message is answered 454;  -X n  554
 *   -B n   the connection is cut at every n-th DATA, when the first piece of the message is there
 *
 * It ends with SIGTERM. One thread: it takes some 30,000 small messages a second on one core.
 */
#define _GNU_SOURCE
#include "conn.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>

enum state { COMMAND, DATA, LOGIN_USER, LOGIN_PASSWORD };
enum { MESSAGES, BYTES, LAST_NS, CONNECTIONS, TLS, AUTH, OPEN, PORT };

typedef struct session {
    conn c;
    enum state state;
    size_t scanned; /* of the message that is coming in */
    int logged_in, sender, recipients;
    struct session *next_free;
} session;

static session *free_sessions;
static volatile uint64_t *counter;
static SSL_CTX *tls_context;
static FILE *log_file;
static unsigned long fail_every, refuse_every, cut_every, messages_seen, data_seen;
static volatile sig_atomic_t stopping;

static void take(const char *message, size_t length, int refused) {
    const char *header_end = memmem(message, length, "\r\n\r\n", 4);
    size_t header = header_end ? (size_t)(header_end - message) : length;
    const char *id = memmem(message, header, "\r\nX-Bench-Id: ", 14);
    int id_length = id ? (int)strcspn(id + 14, "\r") : 1;
    if (refused) {
        fprintf(log_file, "%.*s refused 0\n", id_length, id ? id + 14 : "-");
        return;
    }
    const char *body = header_end ? header_end + 4 : message + length;
    size_t body_length = (size_t)(message + length - body);
    fprintf(log_file, "%.*s %016llx %zu\n", id_length, id ? id + 14 : "-",
            (unsigned long long)checksum(body, body_length), body_length);
    counter[MESSAGES]++;
    counter[BYTES] += length;
    counter[LAST_NS] = now_ns();
}

static void answer_message(session *s, const char *message, size_t length) {
    messages_seen++;
    s->state = COMMAND;
    s->sender = s->recipients = 0;
    s->scanned = 0;
    if (fail_every && messages_seen % fail_every == 0) {
        conn_say(&s->c, "454 4.3.0 Temporary service failure\r\n");
    } else if (refuse_every && messages_seen % refuse_every == 0) {
        take(message, length, 1);
        conn_say(&s->c, "554 5.6.0 Message rejected\r\n");
    } else {
        take(message, length, 0);
        conn_say(&s->c, "250 Ok 0100018c0ffee000-bench-000000\r\n");
    }
}

/* Look for the end of the message that begins at `from`. Its length with the end; 0: not there yet. */
static size_t message_end(session *s, const char *from, size_t length) {
    if (s->scanned == 0 && length >= 3 && !memcmp(from, ".\r\n", 3)) return 3;
    size_t back = s->scanned > 4 ? s->scanned - 4 : 0;
    const char *end = length > back ? memmem(from + back, length - back, "\r\n.\r\n", 5) : NULL;
    s->scanned = length;
    return end ? (size_t)(end + 5 - from) : 0;
}

static int begins(const char *line, size_t length, const char *word) {
    size_t n = strlen(word);
    return length >= n && !strncasecmp(line, word, n);
}

static void ehlo(session *s) {
    conn_say(&s->c, "250-sink.example\r\n250-8BITMIME\r\n250-SIZE 41943040\r\n250-PIPELINING\r\n");
    if (tls_context && !s->c.tls) conn_say(&s->c, "250-STARTTLS\r\n");
    if (s->c.tls) conn_say(&s->c, "250-AUTH PLAIN LOGIN\r\n");
    conn_say(&s->c, "250 Ok\r\n");
}

static int start_tls(session *s) {
    conn_say(&s->c, "220 Ready to start TLS\r\n");
    if (conn_flush(&s->c) < 0) return -1;
    s->c.in.used = 0;
    s->c.tls = SSL_new(tls_context);
    SSL_set_fd(s->c.tls, s->c.fd);
    SSL_set_accept_state(s->c.tls);
    counter[TLS]++;
    return 0;
}

static void logged_in(session *s) {
    conn_say(&s->c, "235 Authentication successful.\r\n");
    s->logged_in = 1;
    s->state = COMMAND;
    counter[AUTH]++;
}

static void log_in(session *s, const char *line, size_t length) {
    int initial = length > strlen("AUTH PLAIN");
    if (begins(line, length, "AUTH PLAIN") && initial) {
        logged_in(s);
    } else if (begins(line, length, "AUTH LOGIN") && !initial) {
        conn_say(&s->c, "334 VXNlcm5hbWU6\r\n");
        s->state = LOGIN_USER;
    } else {
        conn_say(&s->c, initial ? "334 UGFzc3dvcmQ6\r\n" : "334 \r\n");
        s->state = LOGIN_PASSWORD;
    }
}

/* -1: close the connection. 1: the rest of the input is TLS. */
static int command(session *s, const char *line, size_t length) {
    conn *c = &s->c;
    if (begins(line, length, "EHLO")) ehlo(s);
    else if (begins(line, length, "HELO")) conn_say(c, "250 sink.example\r\n");
    else if (begins(line, length, "STARTTLS") && tls_context && !c->tls) return start_tls(s) < 0 ? -1 : 1;
    else if (begins(line, length, "AUTH ")) log_in(s, line, length);
    else if (begins(line, length, "MAIL FROM:")) {
        if (tls_context && !c->tls) conn_say(c, "530 Must issue a STARTTLS command first\r\n");
        else if (tls_context && !s->logged_in) conn_say(c, "530 Authentication required\r\n");
        else s->sender = 1, conn_say(c, "250 Ok\r\n");
    } else if (begins(line, length, "RCPT TO:") && s->sender) {
        s->recipients++;
        conn_say(c, "250 Ok\r\n");
    } else if (begins(line, length, "DATA") && s->recipients) {
        s->state = DATA;
        s->scanned = 0;
        data_seen++;
        conn_say(c, "354 End data with <CR><LF>.<CR><LF>\r\n");
    } else if (begins(line, length, "RSET")) {
        s->sender = s->recipients = 0;
        conn_say(c, "250 Ok\r\n");
    } else if (begins(line, length, "NOOP")) conn_say(c, "250 Ok\r\n");
    else if (begins(line, length, "QUIT")) {
        conn_say(c, "221 Bye\r\n");
        conn_flush(c);
        return -1;
    } else conn_say(c, "503 Bad sequence of commands\r\n");
    return 0;
}

/* Deal with the input. -1: close the connection. */
static int process(session *s) {
    conn *c = &s->c;
    size_t done = 0;
    while (done < c->in.used) {
        char *from = c->in.data + done;
        size_t left = c->in.used - done;
        if (s->state == DATA) {
            if (cut_every && s->scanned == 0 && data_seen % cut_every == 0) return data_seen++, -1;
            size_t length = message_end(s, from, left);
            if (!length) break;
            done += length;
            answer_message(s, from, length - 3);
            continue;
        }
        char *end = memchr(from, '\n', left);
        if (!end) break;
        size_t length = (size_t)(end - from);
        done += length + 1;
        if (length && from[length - 1] == '\r') length--;
        if (s->state == LOGIN_USER) {
            conn_say(c, "334 UGFzc3dvcmQ6\r\n");
            s->state = LOGIN_PASSWORD;
        } else if (s->state == LOGIN_PASSWORD) {
            logged_in(s);
        } else {
            int next = command(s, from, length);
            if (next) return next < 0 ? -1 : 0;
        }
    }
    conn_drop(c, done);
    return 0;
}

static void accept_all(int listener, int epoll) {
    int fd, one = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        session *s = free_sessions;
        if (s) free_sessions = s->next_free;
        else if (!(s = calloc(1, sizeof *s))) abort();
        s->state = COMMAND;
        s->logged_in = s->sender = s->recipients = 0;
        conn_open(&s->c, fd);
        counter[CONNECTIONS]++;
        counter[OPEN]++;
        watch(epoll, &s->c, s);
        conn_say(&s->c, "220 sink.example ESMTP\r\n");
        conn_flush(&s->c);
    }
}

static void serve(session *s, uint32_t events, int epoll) {
    int result = 0;
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
        result = conn_fill(&s->c);
        if (result == 0) result = process(s);
    }
    if (result == 0) result = conn_flush(&s->c);
    if (result == 0) {
        watch_again(epoll, &s->c, s);
        return;
    }
    conn_close(&s->c);
    counter[OPEN]--;
    s->next_free = free_sessions;
    free_sessions = s;
}

static void on_signal(int number) {
    (void)number;
    stopping = 1;
}

static SSL_CTX *server_context(const char *certificate, const char *key) {
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    if (SSL_CTX_use_certificate_chain_file(context, certificate) != 1 ||
        SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) != 1) {
        ERR_print_errors_fp(stderr);
        exit(1);
    }
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_options(context, SSL_OP_IGNORE_UNEXPECTED_EOF);
    return context;
}

static int listen_on(int port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    if (bind(fd, (void *)&address, length) || listen(fd, 1024)) {
        perror("sink: listen");
        exit(1);
    }
    getsockname(fd, (void *)&address, &length);
    counter[PORT] = ntohs(address.sin_port);
    return fd;
}

static void map_counters(const char *path) {
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);
    if (fd < 0 || ftruncate(fd, 4096)) {
        perror("sink: state");
        exit(1);
    }
    counter = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
}

int main(int argc, char **argv) {
    const char *certificate = NULL, *key = NULL, *state = NULL, *log_path = NULL;
    int port = 0, option;
    while ((option = getopt(argc, argv, "p:c:k:s:l:F:X:B:")) > 0) switch (option) {
        case 'p': port = atoi(optarg); break;
        case 'c': certificate = optarg; break;
        case 'k': key = optarg; break;
        case 's': state = optarg; break;
        case 'l': log_path = optarg; break;
        case 'F': fail_every = strtoul(optarg, NULL, 10); break;
        case 'X': refuse_every = strtoul(optarg, NULL, 10); break;
        case 'B': cut_every = strtoul(optarg, NULL, 10); break;
        default: return 2;
    }
    if (!state || !log_path || !(log_file = fopen(log_path, "w"))) return 2;
    setvbuf(log_file, NULL, _IOFBF, 1 << 20);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGTERM, on_signal);
    signal(SIGINT, on_signal);
    if (certificate) tls_context = server_context(certificate, key);
    map_counters(state);
    int listener = listen_on(port), epoll = epoll_create1(0);
    struct epoll_event events[EVENTS], listening = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &listening);
    while (!stopping) {
        int n = epoll_wait(epoll, events, EVENTS, 100);
        if (n == 0) fflush(log_file);
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr) serve(events[i].data.ptr, events[i].events, epoll);
            else accept_all(listener, epoll);
        }
    }
    fclose(log_file);
    return 0;
}
