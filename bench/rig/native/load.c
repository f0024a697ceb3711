/*
 * load - sends mail over many SMTP connections at once and measures.
 *
 *   load [-H ADDRESS] -p PORT | -u SOCKET   where to (127.0.0.1)
 *        [-d SECONDS] [-n MESSAGES]         stop to begin messages after so long, or so many (1,000)
 *        [-c CONNECTIONS] [-s BYTES] [-R]   1, 4,096; -R: connections are kept for many messages
 *        [-T] [-A] [-r RUN] [-a FILE] [-f SENDER] [-L SECONDS] [-w SECONDS]
 *
 * -T begins with STARTTLS (nothing is verified) and -A logs in. Each message has "X-Bench-Id: RUN-n", and
 * the ids of those that got 250 are written to -a. -L gives up altogether. -w sends nothing more for so
 * long in the middle of each message, as slow clients do.
 *
 * The result is one line of JSON. The latency of a message is connect() to the last 250 or, with -R, MAIL
 * to the last 250. Commands are not pipelined: neither PHPMailer nor smtplib does. A connection without
 * a banner for 2 s (a full backlog drops it) is tried again, and counts as a stall; its clock runs on.
 */
#define _GNU_SOURCE
#include "conn.h"

#include <signal.h>

enum step { BANNER, EHLO, STARTTLS, LOGIN, MAIL, RCPT, DATA, BODY, QUIT };

typedef struct {
    conn c;
    enum step step;
    long number; /* of the message */
    uint64_t began, connected, resume; /* `resume`: when the rest of a slow message goes out */
} client;

static struct sockaddr_storage address;
static socklen_t address_length;
static SSL_CTX *tls_context;
static long messages = 1000, connections = 1, issued, accepted, failed, stalls;
static size_t size = 4096;
static int reuse, log_in, epoll;
static double duration, limit = 120, hesitation;
static uint32_t *latency; /* microseconds by message; 0: not accepted */
static char *body, last_error[200];
static size_t body_length;
static const char *run = "run", *sender = "app@example.com";
static FILE *accepted_ids;
static uint64_t start_ns, end_ns;

static double seconds_since(uint64_t then) { return (double)(now_ns() - then) / 1e9; }

static void make_body(void) {
    size_t want = size > 400 ? size - 330 : 70;
    if (!(body = malloc(want + 128))) abort();
    while (body_length + 80 <= want) {
        for (size_t i = 0; i < 76; i++) body[body_length + i] = (char)('a' + (body_length + i) % 26);
        memcpy(body + body_length + 76, "\r\n", 2);
        body_length += 78;
    }
    memcpy(body + body_length, "end\r\n.\r\n", 8);
    body_length += 8;
}

static void message_over(client *g, int ok) {
    end_ns = now_ns();
    if (!ok) {
        failed++;
        return;
    }
    accepted++;
    latency[g->number] = (uint32_t)((end_ns - g->began) / 1000) + 1;
    if (accepted_ids) fprintf(accepted_ids, "%s-%ld\n", run, g->number);
}

static int take_number(client *g) {
    if (issued >= messages || (duration > 0 && seconds_since(start_ns) > duration)) return 0;
    g->number = issued++;
    return 1;
}

static int open_connection(client *g) {
    int fd = socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    if (address.ss_family == AF_INET) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    conn_open(&g->c, fd);
    g->step = BANNER;
    g->resume = 0;
    g->connected = now_ns();
    if (connect(fd, (void *)&address, address_length) < 0 && errno != EINPROGRESS) {
        snprintf(last_error, sizeof last_error, "connect: %s", strerror(errno));
        conn_close(&g->c);
        return -1;
    }
    watch(epoll, &g->c, g);
    return 0;
}

/* Begin the next message on a new connection. 0: there is none left. */
static int next_message(client *g) {
    while (take_number(g)) {
        g->began = now_ns();
        if (open_connection(g) == 0) return 1;
        message_over(g, 0);
    }
    return 0;
}

static void say_mail(client *g) {
    char line[300];
    snprintf(line, sizeof line, "MAIL FROM:<%s>\r\n", sender);
    conn_say(&g->c, line);
    if (reuse) g->began = now_ns();
    g->step = MAIL;
}

static void say_message(client *g) {
    char header[800];
    int n = snprintf(header, sizeof header,
                     "From: App <%s>\r\nTo: User <user@example.net>\r\nSubject: bench message\r\n"
                     "Date: Mon, 24 Nov 2025 02:00:00 +0000\r\nMessage-ID: <%s.%ld@load.example>\r\n"
                     "X-Bench-Id: %s-%ld\r\nMIME-Version: 1.0\r\n"
                     "Content-Type: text/plain; charset=us-ascii\r\n\r\n",
                     sender, run, g->number, run, g->number);
    conn_put(&g->c, header, (size_t)n);
    if (hesitation > 0) g->resume = now_ns() + (uint64_t)(hesitation * 1e9);
    else conn_put(&g->c, body, body_length);
    g->step = BODY;
}

static void begin_tls(client *g) {
    g->c.tls = SSL_new(tls_context);
    SSL_set_fd(g->c.tls, g->c.fd);
    SSL_set_connect_state(g->c.tls);
    conn_say(&g->c, "EHLO load.example\r\n");
    g->step = EHLO;
}

/* Act on a reply. -1: close. 1: the rest of the input is TLS. */
static int on_reply(client *g, int code, const char *line) {
    conn *c = &g->c;
    if (code >= 400) {
        snprintf(last_error, sizeof last_error, "step %d: %.150s", (int)g->step, line);
        if (g->step < QUIT) message_over(g, 0);
        return -1;
    }
    switch (g->step) {
    case BANNER: conn_say(c, "EHLO load.example\r\n"), g->step = EHLO; break;
    case EHLO:
        if (tls_context && !c->tls) conn_say(c, "STARTTLS\r\n"), g->step = STARTTLS;
        else if (log_in) conn_say(c, "AUTH PLAIN AHVzZXIAcGFzcw==\r\n"), g->step = LOGIN;
        else say_mail(g);
        break;
    case STARTTLS: begin_tls(g); return 1;
    case LOGIN: say_mail(g); break;
    case MAIL: conn_say(c, "RCPT TO:<user@example.net>\r\n"), g->step = RCPT; break;
    case RCPT: conn_say(c, "DATA\r\n"), g->step = DATA; break;
    case DATA: say_message(g); break;
    case BODY:
        message_over(g, 1);
        if (reuse && take_number(g)) say_mail(g);
        else conn_say(c, "QUIT\r\n"), g->step = QUIT;
        break;
    case QUIT: return -1;
    }
    return 0;
}

static int read_replies(client *g) {
    conn *c = &g->c;
    size_t done = 0;
    char *end;
    while ((end = memchr(c->in.data + done, '\n', c->in.used - done))) {
        char *line = c->in.data + done;
        size_t length = (size_t)(end - line);
        done += length + 1;
        if (length < 3 || line[3] == '-') continue;
        *end = 0;
        int next = on_reply(g, atoi(line), line);
        if (next < 0) return -1;
        if (next > 0) done = c->in.used;
    }
    conn_drop(c, done);
    return 0;
}

/* -1: this connection is over. */
static int serve(client *g, uint32_t events) {
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
        if (conn_fill(&g->c) < 0) {
            if (g->step < QUIT) {
                snprintf(last_error, sizeof last_error, "closed at step %d", (int)g->step);
                message_over(g, 0);
            }
            return -1;
        }
        if (read_replies(g) < 0) return -1;
    }
    if (conn_flush(&g->c) == 0) return 0;
    if (g->step < QUIT) message_over(g, 0);
    return -1;
}

/* Every quarter second: connections without a banner, and slow messages. */
static void look_after(client *all) {
    static uint64_t last;
    uint64_t now = now_ns();
    if (now - last < 250000000ull) return;
    last = now;
    for (client *g = all; g < all + connections; g++) {
        if (g->c.fd >= 0 && g->step == BANNER && now - g->connected > 2000000000ull) {
            conn_close(&g->c);
            stalls++;
            if (open_connection(g) < 0) message_over(g, 0);
        } else if (g->c.fd >= 0 && g->resume && now > g->resume) {
            g->resume = 0;
            conn_put(&g->c, body, body_length);
            conn_flush(&g->c);
            watch_again(epoll, &g->c, g);
        }
    }
}

static long count_open(client *all) {
    long open = 0;
    for (client *g = all; g < all + connections; g++) open += g->c.fd >= 0;
    return open;
}

static void send_all(client *all) {
    struct epoll_event events[EVENTS];
    long open = count_open(all);
    while (open > 0 && seconds_since(start_ns) < limit) {
        int n = epoll_wait(epoll, events, EVENTS, 250);
        for (int i = 0; i < n; i++) {
            client *g = events[i].data.ptr;
            if (g->c.fd < 0) continue;
            if (serve(g, events[i].events) == 0) watch_again(epoll, &g->c, g);
            else if (conn_close(&g->c), !next_message(g)) open--;
        }
        look_after(all);
    }
    if (open > 0) snprintf(last_error, sizeof last_error, "time limit");
}

static int ascending(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static double percentile(long count, double share) {
    return count ? latency[(long)((double)(count - 1) * share)] / 1000.0 : 0;
}

static void report(void) {
    long count = 0;
    for (long i = 0; i < issued; i++)
        if (latency[i]) latency[count++] = latency[i];
    qsort(latency, (size_t)count, sizeof *latency, ascending);
    for (char *p = last_error; *p; p++)
        if (*p < 32 || *p == '"' || *p == '\\') *p = ' ';
    double wall = (double)(end_ns - start_ns) / 1e9;
    printf("{\"accepted\":%ld,\"failed\":%ld,\"seconds\":%.4f,\"p50_ms\":%.3f,\"p99_ms\":%.3f,\"max_ms\":%.3f,"
           "\"began_ns\":%llu,\"stalls\":%ld,\"body\":\"%016llx\",\"error\":\"%s\"}\n",
           accepted, failed, wall, percentile(count, 0.5), percentile(count, 0.99), percentile(count, 1.0),
           (unsigned long long)start_ns, stalls,
           (unsigned long long)checksum(body, body_length - 3), last_error);
}

static void set_address(const char *host, int port, const char *path) {
    if (path) {
        struct sockaddr_un *a = (void *)&address;
        a->sun_family = AF_UNIX;
        strncpy(a->sun_path, path, sizeof a->sun_path - 1);
        address_length = sizeof *a;
    } else {
        struct sockaddr_in *a = (void *)&address;
        a->sin_family = AF_INET;
        a->sin_port = htons((uint16_t)port);
        inet_pton(AF_INET, host, &a->sin_addr);
        address_length = sizeof *a;
    }
}

int main(int argc, char **argv) {
    const char *host = "127.0.0.1", *path = NULL, *ids = NULL;
    int port = 0, option;
    while ((option = getopt(argc, argv, "H:p:u:d:n:c:s:RTAr:a:f:L:w:")) > 0) switch (option) {
        case 'H': host = optarg; break;
        case 'p': port = atoi(optarg); break;
        case 'u': path = optarg; break;
        case 'd': duration = atof(optarg); break;
        case 'n': messages = atol(optarg); break;
        case 'c': connections = atol(optarg); break;
        case 's': size = (size_t)atol(optarg); break;
        case 'R': reuse = 1; break;
        case 'T': tls_context = SSL_CTX_new(TLS_client_method()); break;
        case 'A': log_in = 1; break;
        case 'r': run = optarg; break;
        case 'a': ids = optarg; break;
        case 'f': sender = optarg; break;
        case 'L': limit = atof(optarg); break;
        case 'w': hesitation = atof(optarg); break;
        default: return 2;
    }
    if (!port && !path) return 2;
    if (tls_context)
        SSL_CTX_set_mode(tls_context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    signal(SIGPIPE, SIG_IGN);
    set_address(host, port, path);
    if (ids) {
        if (!(accepted_ids = fopen(ids, "w"))) return perror(ids), 2;
        setvbuf(accepted_ids, NULL, _IOFBF, 1 << 20);
    }
    make_body();
    latency = calloc((size_t)messages, sizeof *latency);
    client *all = calloc((size_t)connections, sizeof *all);
    if (!latency || !all) abort();
    epoll = epoll_create1(0);
    start_ns = end_ns = now_ns();
    for (long i = 0; i < connections; i++) {
        all[i].c.fd = -1;
        next_message(&all[i]);
    }
    send_all(all);
    if (accepted_ids) fclose(accepted_ids);
    report();
    return 0;
}
