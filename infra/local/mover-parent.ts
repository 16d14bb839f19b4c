/**
 * Loaded into the mover before its main module: when the local stack dies, even by kill -9, the IPC channel closes,
 * and the mover is told to drain as by an operator.
 */
process.on("disconnect", () => process.kill(process.pid, "SIGTERM"));
process.channel?.unref();
