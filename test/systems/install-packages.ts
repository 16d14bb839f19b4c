import { installMissing } from "../testbeds/run.ts";

/** Before any system test: the Debian packages whose programs the tests start themselves. Testbeds install their own. */
export async function setup(): Promise<void> {
  await installMissing(
    [
      "qemu-utils",
      "nbdkit",
      "libnbd-bin",
      "openssh-server",
      "openssh-client",
      "openssl",
      "util-linux",
      "passwd",
    ],
    (line) => process.stdout.write(`${line}\n`),
  );
}
