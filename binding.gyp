{
  "target_defaults": {
    "cflags": ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-fstack-protector-strong", "-D_FORTIFY_SOURCE=2"],
    "defines": ["_GNU_SOURCE", "NAPI_VERSION=8"]
  },
  "targets": [
    {
      "target_name": "bpftoken",
      "sources": ["native/addon.c", "native/call.c", "native/memory.c", "native/poll.c", "native/socket.c"]
    },
    {
      "target_name": "bpftoken-launch",
      "type": "executable",
      "sources": ["native/launch.c", "native/program.c", "native/terminal.c", "native/watch.c"]
    },
    {
      # Linked statically where there is a static C library: it is executed again for each plan.
      "target_name": "bpftoken-executor",
      "type": "executable",
      "sources": [
        "native/executor/main.c",
        "native/executor/action.c",
        "native/executor/child.c",
        "native/executor/inside.c",
        "native/executor/message.c",
        "native/executor/mount.c",
        "native/executor/plan.c"
      ],
      "ldflags": ["<!@(echo 'int main(void){return 0;}' | gcc -static -x c - -o /dev/null 2>/dev/null && echo -static || echo -O1)"]
    }
  ]
}
