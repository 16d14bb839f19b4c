import type { VmView } from "@holdfast/shared/contracts/api";
import type { CommandDefinition } from "../command.ts";
import { exitCodes } from "../exit-codes.ts";
import { formatAge, formatBytes, formatTime } from "../render/format.ts";
import { renderFields, renderTable, type Table } from "../render/table.ts";
import { printResult, printTable } from "../report.ts";

export function vmTable(vms: readonly VmView[], nowMs: number, empty: string): Table {
  return {
    columns: [
      { title: "NAME" },
      { title: "PROVIDER" },
      { title: "POWER" },
      { title: "DISKS", align: "right" },
      { title: "SIZE", align: "right" },
      { title: "STRATEGY" },
      { title: "LAST POINT" },
      { title: "NOW" },
      { title: "ID" },
    ],
    rows: vms.map((vm) => [
      vm.name,
      vm.providerId,
      vm.gone ? "gone" : vm.power,
      String(vm.description.disks.length),
      formatBytes(vm.description.disks.reduce((sum, disk) => sum + disk.sizeBytes, 0)),
      vm.strategy,
      vm.lastPoint === undefined ? "never" : formatAge(vm.lastPoint.takenAt ?? "", nowMs),
      vm.jobId === undefined ? "" : `job ${vm.jobId}`,
      vm.vmId,
    ]),
    empty,
  };
}

const list: CommandDefinition = {
  path: "vm list",
  summary: "list VMs, with the age of their last recovery point",
  options: [{ flags: "--provider <name>", summary: "only those of this provider" }],
  examples: [
    { command: "holdfast vm list", explanation: "What the last sync saw." },
    {
      command: "holdfast vm list | awk -F'\\t' '$7 == \"never\" {print $1}'",
      explanation: "Names of VMs without any recovery point.",
    },
  ],
  run: async (context, input) => {
    const provider = input.text("provider");
    const query = provider === undefined ? {} : { provider };
    const { items } = await (await context.api()).call("listVms", { query });
    printTable(
      context,
      { items },
      vmTable(items, context.clock.now(), "No VMs yet. Read the inventory: holdfast sync"),
    );
    return exitCodes.done.code;
  },
};

const show: CommandDefinition = {
  path: "vm show",
  summary: "show a VM: disks, strategy and its reason, policies, points",
  arguments: [{ name: "vm", summary: "name or id of the VM" }],
  examples: [
    {
      command: "holdfast vm show web1",
      explanation: "By name; by id when the name is not unique.",
    },
  ],
  run: async (context, input) => {
    const vm = await (await context.api()).call("getVm", { id: input.argument("vm") });
    const { description } = vm;
    printResult(context, vm, (forPeople) =>
      [
        renderFields(
          [
            ["name", vm.name],
            ["id", vm.vmId],
            ["provider", vm.providerId],
            ["power", vm.gone ? "gone (not seen by the last sync)" : vm.power],
            ["uuid", description.uuid],
            [
              "machine",
              `${description.vcpus} CPU(s), ${formatBytes(description.memoryBytes)}, ${description.architecture}, ${description.firmware}`,
            ],
            ["strategy", `${vm.strategy}: ${vm.strategyReason}`],
            ["policies", vm.policyIds.join(", ") || "none"],
            ["points", String(vm.points)],
            [
              "last point",
              vm.lastPoint === undefined
                ? "never"
                : `${vm.lastPoint.pointId} (${formatTime(vm.lastPoint.takenAt)})`,
            ],
            ["running job", vm.jobId ?? "none"],
          ],
          { forPeople },
        ),
        renderTable(
          {
            columns: [
              { title: "DISK" },
              { title: "SIZE", align: "right" },
              { title: "FORMAT" },
              { title: "STORAGE" },
              { title: "LOCATION" },
              { title: "NOTE" },
            ],
            rows: description.disks.map((disk) => [
              disk.key,
              formatBytes(disk.sizeBytes),
              disk.format,
              disk.storage,
              disk.location,
              [disk.readOnly ? "read-only" : "", disk.shareable ? "shareable" : ""]
                .filter(Boolean)
                .join(", "),
            ]),
          },
          { forPeople },
        ),
      ].join(forPeople ? "\n" : ""),
    );
    return exitCodes.done.code;
  },
};

export const vmCommands: readonly CommandDefinition[] = [list, show];
