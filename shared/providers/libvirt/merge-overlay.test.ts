import { expect, test } from "vitest";
import { createVirsh } from "../../kvm-host/virsh.ts";
import type { CommandResult, HostConnection } from "../../ports/host.ts";
import type { Ledger, LedgerEntry } from "../../ports/ledger.ts";
import { silentLogger } from "../../ports/logger.ts";
import type { LibvirtHost } from "./libvirt-host.ts";
import { mergeOverlay } from "./merge-overlay.ts";

/** An overlay that is in no chain of its VM any more and whose content is merged; another VM of the host is asked about. */
const overlay = "/images/web.holdfast-job1.overlay";
const other = "11111111-1111-4111-8111-111111111111";
const entry = {
  id: "job1/overlay/vda",
  jobId: "job1",
  kind: "overlay",
  name: overlay,
  details: {},
  kept: false,
} satisfies LedgerEntry;
const layer = { path: "/images/web.qcow2", format: "qcow2" } as const;
const details = {
  target: "vda",
  overlay,
  base: layer,
  root: layer,
  rootInode: "7",
  forIncremental: true,
};

function answer(stdout: string, stderr = ""): CommandResult {
  return { exitCode: stderr === "" ? 0 : 1, stdout, stderr };
}

async function merge(dumpXml: CommandResult): Promise<{ result: unknown; removed: boolean }> {
  let removed = false;
  const connection: Pick<HostConnection, "run"> = {
    async run(command) {
      if (command.includes("domstate")) return answer("", "error: failed to get domain 'gone'");
      if (command[0] === "stat") return answer("9 65536 1.0/1.0 0:0");
      if (command.includes("list")) return answer(`${other}\n`);
      if (command.includes("dumpxml")) return dumpXml;
      removed ||= command[0] === "rm";
      return answer("");
    },
  };
  const entries = [entry, { ...entry, id: "job1/overlay-merged/vda", kind: "overlay-merged" }];
  const ledger: Ledger = {
    intend: async () => undefined,
    keep: async () => undefined,
    settle: async () => undefined,
    list: async () => entries,
  };
  const virsh = createVirsh(connection as HostConnection, "qemu:///system");
  const host = { connection, virsh } as unknown as LibvirtHost;
  const context = { host, uuid: "gone", ledger, logger: silentLogger };
  const result = await mergeOverlay(context, entry, details).catch((error: unknown) => error);
  return { result, removed };
}

test("an overlay is not removed while it cannot be known whether another VM uses it", async () => {
  const { result, removed } = await merge(answer("", "error: failed to connect to the hypervisor"));
  expect(result).toMatchObject({ code: "network.unreachable" });
  expect(removed).toBe(false);
});

test("a VM that is removed while it is asked about uses no overlay", async () => {
  const { result, removed } = await merge(answer("", "error: failed to get domain 'other'"));
  expect(result).toBe("merged");
  expect(removed).toBe(true);
});
