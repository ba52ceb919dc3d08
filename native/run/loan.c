/* The loan for ourselves: asked for, waited for where root must say yes first, and looked at. */
#include "run.h"

#include "../client/daemon.h"

#include <errno.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

/* For hangs: what the daemon does has time limits of its own. */
#define ANSWER_MS 60000
#define WAIT_SEC "30"
#define WITHDRAW_MS 5000
#define RECONNECT_TIMES 30

/* One byte more than a path has, each as long as JSON can make it. */
#define BODY_MAX_BYTES (6 * 4096 + 512)

/* Who reads what is said. Our own id does not tell: in a user namespace of ours it is 0, too. */
static bool asks_for_root;
/* Why it was asked for in this way; NULL: it is the usual one. */
static const char *forbidden;

static const char *text_of(const struct json *object, const char *name)
{
	return json_string(json_member(object, name));
}

/* ---- What the daemon says that it cannot do ---- */

_Noreturn static void fail_to_ask(enum daemon_failure failure, int error)
{
	struct text message = { 0 };

	switch (failure) {
	case DAEMON_LATE:
		fail("BPFTOKEN_TIMEOUT", "the daemon gave no answer in time", NULL);
	case DAEMON_GONE:
		fail("BPFTOKEN_UNREACHABLE", "the daemon went away before it had answered", "Try again");
	case DAEMON_GARBLED:
		fail("BPFTOKEN_FORMAT", "what answers speaks no HTTP that is known here", NULL);
	case DAEMON_TOO_LONG:
		fail("BPFTOKEN_FORMAT", "the answer of the daemon is too long", NULL);
	default:
		put(&message, "the daemon cannot be asked (");
		put(&message, errno_name(error));
		put(&message, ")");
		fail("BPFTOKEN_UNREACHABLE", message.bytes, NULL);
	}
}

#define INSTALL_GUARD "bpftoken guard install"

/* In the words of a command line, what helps by the daemon's reason: for a user, and for root. */
static const char *hint_for(const char *reason)
{
	static const struct {
		const char *reason, *user, *root;
	} hints[] = {
		{ "subject-refused", "Ask root to add you to spec.subjects of the policy",
		  "Add this subject to spec.subjects of the policy" },
		{ "subjects-unsupported", "Ask root to name users, cgroups, units or labels in spec.subjects of the policy",
		  "Name users, cgroups, units or labels in spec.subjects of the policy" },
		{ "network-shared",
		  "Ask root to install the guard (" INSTALL_GUARD "), or to say spec.network: host in the policy",
		  "Leave out --host-net, or say spec.network: host in the policy" },
		{ "guard-needed",
		  "Ask root to install the guard (" INSTALL_GUARD "), or to say spec.guard: optional in the policy",
		  "Install the guard (" INSTALL_GUARD "), or say spec.guard: optional in the policy" },
		{ "guard-missing", "Ask root to install the guard: " INSTALL_GUARD, "Install the guard: " INSTALL_GUARD },
		{ "launch-refused",
		  "Ask root to say spec.launch: allowed in the policy; or root runs it for you: sudo bpftoken run --user NAME",
		  NULL },
		{ "launcher-missing",
		  "Ask root to start it (systemctl enable --now bpftoken-launchd.socket), or to run it for you: sudo bpftoken run --user NAME",
		  NULL },
		{ "place-taken", "Name another place: --path", "Name another place: --path" },
		{ "tokens-unknown", "Run Linux 6.9 or newer; bpftoken doctor shows what else is missing",
		  "Run Linux 6.9 or newer; bpftoken doctor shows what else is missing" },
	};

	for (size_t i = 0; reason && i < sizeof(hints) / sizeof(hints[0]); i++)
		if (strcmp(hints[i].reason, reason) == 0)
			return asks_for_root ? hints[i].root : hints[i].user;
	return NULL;
}

_Noreturn static void fail_as_told(const struct daemon_answer *answer)
{
	const char *code = text_of(answer->document, "code"), *detail = text_of(answer->document, "detail");
	const char *hint = hint_for(text_of(answer->document, "reason"));
	char status[64];

	snprintf(status, sizeof(status), "the daemon answered with status %d, and no word why", answer->status);
	if (!detail)
		detail = text_of(answer->document, "title");
	if (forbidden)
		note("you cannot make the namespaces on this machine: ", forbidden, "");
	fail(code ? code : "BPFTOKEN_INTERNAL", detail ? detail : status,
	     hint ? hint : text_of(answer->document, "hint"));
}

_Noreturn static void fail_as_unknown(void)
{
	fail("BPFTOKEN_FORMAT", "the daemon gave an answer that is not known here",
	     "Use bpftoken and bpftokend of one version");
}

/* ---- What it says that it has done ---- */

/* Fail closed: the program gets none that was not read. */
static uint64_t capabilities_of(const struct json *loan)
{
	const struct json *names = json_member(json_member(loan, "record"), "capabilities");
	uint64_t all = 0;

	if (!names || names->type != JSON_ARRAY)
		fail_as_unknown();
	for (const struct json *name = json_first(names); name; name = json_next(names, name)) {
		uint64_t bit = name->type == JSON_STRING ? capability_named(name->text, name->length) : 0;
		if (bit == 0)
			fail_as_unknown();
		all |= bit;
	}
	return all;
}

static void tell_concerns(const struct json *answer)
{
	const struct json *fields = json_member(answer, "unenforced"), *concerns = json_member(answer, "preflight");

	for (const struct json *field = json_first(fields); field; field = json_next(fields, field))
		if (field->type == JSON_STRING)
			note("without the guard nothing enforces ", field->text, "");
	for (const struct json *concern = json_first(concerns); concern; concern = json_next(concerns, concern))
		if (text_of(concern, "what"))
			note("", text_of(concern, "what"), "");
}

/* That it is reached, and not only said. */
static void require_mounted(const char *path, const char *reached)
{
	struct statfs there;

	if (statfs(reached, &there) == 0 && there.f_type == BPF_FS_MAGIC)
		return;
	struct text message = { 0 };
	put(&message, "the daemon says that it has lent, and at ");
	put_printable(&message, path);
	put(&message, " there is no bpffs");
	fail("BPFTOKEN_CONFLICT", message.bytes, "See that the daemon and this command are of one machine");
}

/* ---- Waiting for root ---- */

/*
 * Signals that end us, as something that can be waited for; what they do by themselves is in
 * `before`.
 */
static int hold_ending_signals(sigset_t *before)
{
	sigset_t ending;

	sigemptyset(&ending);
	sigaddset(&ending, SIGINT);
	sigaddset(&ending, SIGTERM);
	sigaddset(&ending, SIGHUP);
	if (sigprocmask(SIG_BLOCK, &ending, before) < 0)
		die("sigprocmask");
	int signals = signalfd(-1, &ending, SFD_CLOEXEC | SFD_NONBLOCK);
	if (signals < 0)
		die("signalfd");
	return signals;
}

struct waiting {
	const char *socket;
	char id[32]; /* of the request */
	int signals;
};

/* The request is withdrawn, and we end of the signal that came. */
_Noreturn static void withdraw(const struct waiting *waiting, const sigset_t *before)
{
	struct signalfd_siginfo came = { 0 };
	struct daemon_answer answer;
	char path[128];

	snprintf(path, sizeof(path), "/v1/requests/%s/withdraw", waiting->id);
	int connection = daemon_connect(waiting->socket, WITHDRAW_MS);
	if (connection >= 0)
		daemon_ask(connection, "POST", path, NULL, WITHDRAW_MS, -1, &answer);
	if (read(waiting->signals, &came, sizeof(came)) == sizeof(came)) {
		raise(came.ssi_signo);
		sigprocmask(SIG_SETMASK, before, NULL);
	}
	/* It is ignored, or was taken away. */
	_exit(128 + (came.ssi_signo ? (int)came.ssi_signo : SIGINT));
}

/* A question about the request; false: a signal came. */
static bool ask_about(const struct waiting *waiting, const char *path, struct daemon_answer *answer)
{
	for (int times = 0;; times++) {
		int connection = daemon_connect(waiting->socket, ANSWER_MS);
		int error = errno;
		enum daemon_failure failure = DAEMON_ERRNO;
		if (connection >= 0) {
			failure = daemon_ask(connection, "GET", path, NULL, ANSWER_MS, waiting->signals, answer);
			error = errno;
		}
		if (failure == DAEMON_OK)
			return true;
		if (failure == DAEMON_ERRNO && error == EINTR)
			return false;
		/* A daemon that starts anew has not forgotten the request. */
		bool restarts = failure == DAEMON_GONE || (connection < 0 && (error == ECONNREFUSED || error == ENOENT));
		if (!restarts || times == RECONNECT_TIMES)
			fail_to_ask(failure, error);
		struct signalfd_siginfo came;
		nanosleep(&(struct timespec){ .tv_sec = 1 }, NULL);
		if (read(waiting->signals, &came, sizeof(came)) == sizeof(came)) {
			raise(came.ssi_signo);
			return false;
		}
	}
}

_Noreturn static void fail_as_decided(const struct json *request, const char *state)
{
	const char *comment = text_of(json_member(request, "decided"), "comment");
	struct text message = { 0 };
	bool denied = strcmp(state, "denied") == 0;

	put(&message, "the request for the loan was not granted: it is ");
	put(&message, state);
	if (comment) {
		put(&message, ": ");
		put(&message, comment);
	}
	fail(denied ? "BPFTOKEN_DENIED" : strcmp(state, "expired") == 0 ? "BPFTOKEN_TIMEOUT" : "BPFTOKEN_FAILED",
	     message.bytes, NULL);
}

/*
 * The state of the request once it is decided; false: a signal came. The loan it is then in `loan`.
 */
static bool await_decision(const struct waiting *waiting, char *loan, size_t room)
{
	struct daemon_answer answer;
	char path[128];

	snprintf(path, sizeof(path), "/v1/requests/%s?wait=" WAIT_SEC, waiting->id);
	for (;;) {
		if (!ask_about(waiting, path, &answer))
			return false;
		if (answer.status != 200)
			fail_as_told(&answer);
		const char *state = text_of(answer.document, "state"), *id = text_of(answer.document, "loan");
		if (!state)
			fail_as_unknown();
		if (strcmp(state, "waiting") == 0)
			continue;
		if (strcmp(state, "approved") != 0)
			fail_as_decided(answer.document, state);
		if (!id || strlen(id) >= room)
			fail_as_unknown();
		strcpy(loan, id);
		return true;
	}
}

static uint64_t await_approval(const char *socket, const struct json *request)
{
	struct waiting waiting = { .socket = socket };
	struct daemon_answer answer;
	char loan[32], path[64];
	sigset_t before;

	const char *id = text_of(request, "id");
	if (!id || strlen(id) >= sizeof(waiting.id))
		fail_as_unknown();
	strcpy(waiting.id, id);
	note("", id, " waits until root approves it (bpftoken approve); Ctrl-C withdraws it");
	waiting.signals = hold_ending_signals(&before);
	if (!await_decision(&waiting, loan, sizeof(loan)))
		withdraw(&waiting, &before);
	snprintf(path, sizeof(path), "/v1/loans/%s", loan);
	if (!ask_about(&waiting, path, &answer))
		withdraw(&waiting, &before);
	close(waiting.signals);
	sigprocmask(SIG_SETMASK, &before, NULL);
	if (answer.status != 200)
		fail_as_told(&answer);
	return capabilities_of(answer.document);
}

/* ---- The question ---- */

static void compose(const struct options *options, const char *recipient, char *body, size_t room)
{
	char path[6 * 4096 + 3];

	if (json_quote(options->path, path, sizeof(path)) == 0)
		fail("BPFTOKEN_USAGE", "--path is no UTF-8", NULL);
	/* The name is one: nothing in it needs quoting. */
	snprintf(body, room, "{\"policy\":{\"name\":\"%s\"},\"recipient\":%s,\"place\":{\"path\":%s}}",
		 options->policy, recipient, path);
}

const char *daemon_socket(const struct options *options)
{
	const char *named = options->socket ? options->socket : getenv("BPFTOKEN_SOCKET");

	return named && *named ? named : DAEMON_SOCKET;
}

uint64_t borrow(const struct options *options, const char *recipient, const char *reached, int connection)
{
	char body[BODY_MAX_BYTES];
	struct daemon_answer answer;
	uint64_t capabilities;

	asks_for_root = options->for_root;
	forbidden = options->forbidden;
	compose(options, recipient, body, sizeof(body));
	enum daemon_failure failure = daemon_ask(connection, "POST", "/v1/loans", body, ANSWER_MS, -1, &answer);
	if (failure != DAEMON_OK)
		fail_to_ask(failure, errno);
	if (answer.status == 201) {
		tell_concerns(answer.document);
		capabilities = capabilities_of(json_member(answer.document, "loan"));
	} else if (answer.status == 202) {
		capabilities = await_approval(daemon_socket(options), json_member(answer.document, "request"));
	} else {
		fail_as_told(&answer);
	}
	if (reached)
		require_mounted(options->path, reached);
	return capabilities;
}
