import { expect, test } from "vitest";
import { parseDomain } from "../../kvm-host/domain-xml.ts";
import { removableFiles, rewriteDefinition } from "./restore-domain-xml.ts";

const xml = `<domain type='kvm'><name>old</name><uuid>11111111-1111-1111-1111-111111111111</uuid><genid>g</genid>
  <os><loader type='pflash'>/l</loader><nvram>/n/old.fd</nvram></os>
  <devices>
    <disk type='file' device='disk'><driver name='qemu' type='raw' cache='none'/><source file='/old/a.raw'/><target dev='vda' bus='virtio'/></disk>
    <disk type='block' device='disk'><driver name='qemu' type='raw'/><source dev='/dev/x'/><target dev='vdb' bus='virtio'/></disk>
    <disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='/old/c'/><target dev='vdc' bus='virtio'/></disk>
    <disk type='file' device='cdrom'><source file='/gone.iso'/><target dev='sda' bus='sata'/></disk>
    <serial type='file'><source path='/log/old.console' append='on'/></serial>
    <interface type='network'><mac address='52:54:00:aa:aa:aa'/><source network='default'/><target dev='vnet3'/></interface>
  </devices></domain>`;

const change = {
  name: "new & shiny",
  uuid: "22222222-2222-4222-8222-222222222222",
  keepIdentity: false,
  jobId: "job1",
  nvram: "/n/new.fd",
  presentFiles: new Set<string>(),
  disks: [
    {
      kind: "file" as const,
      key: "vda",
      sizeBytes: 1,
      format: "qcow2" as const,
      partial: "/p",
      final: "/new/a.qcow2",
    },
    {
      kind: "rbd" as const,
      key: "vdb",
      sizeBytes: 1,
      partial: "p/x",
      final: "p/new-vdb",
      identity: "rbd_data.1",
      rbd: { image: "p/x", configFile: "/c", monitors: ["h:1"] },
    },
  ],
};

test("name, UUID, disks, addresses and variables are new; the rest stays", () => {
  const text = rewriteDefinition(xml, change);
  const domain = parseDomain(text);
  expect(domain).toMatchObject({ name: "new & shiny", uuid: change.uuid, nvram: "/n/new.fd" });
  expect(domain.disks.map(({ target, format, source }) => [target, format, source])).toEqual([
    ["vda", "qcow2", { kind: "file", path: "/new/a.qcow2" }],
    [
      "vdb",
      "raw",
      { kind: "rbd", image: "p/new-vdb", configFile: "/c", user: undefined, monitors: ["h:1"] },
    ],
  ]);
  expect(domain.nics[0]?.mac).toMatch(/^52:54:00:(?!aa:aa:aa)/);
  expect(text).toContain('cache="none"');
  expect(text).toContain('path="/log/new___shiny.console"');
  expect(text).not.toMatch(/gone\.iso|genid|vnet3/);
  expect(rewriteDefinition(xml, change)).toBe(text);
});

test("the identity stays where that is asked for", () => {
  const text = rewriteDefinition(xml, { ...change, keepIdentity: true });
  expect(text).toContain("52:54:00:aa:aa:aa");
  expect(text).toContain("<genid>g</genid>");
  expect(removableFiles(xml)).toEqual(["/gone.iso"]);
});
