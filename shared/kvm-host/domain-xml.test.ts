import { expect, test } from "vitest";
import { backupXml, checkpointXml, parseDomain, withDiskImage } from "./domain-xml.ts";

const xml = `<domain type='kvm' id='7'>
  <name>web &amp; db</name><uuid>8b084bb3-d254-4d8a-b783-d7a29e94cf17</uuid>
  <memory unit='MiB'>128</memory><vcpu>2</vcpu>
  <os firmware='efi'><type arch='aarch64'>hvm</type><nvram>/n/v.fd</nvram></os>
  <devices>
    <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/d/top.qcow2' index='2'/>
      <backingStore type='file'><format type='raw'/><source file='/d/base.raw'/><backingStore/></backingStore>
      <target dev='vda' bus='virtio'/><serial>S1</serial></disk>
    <disk type='network' device='disk'><driver name='qemu' type='raw'/>
      <source protocol='rbd' name='p/i'><host name='m' port='3300'/><config file='/c.conf'/><auth username='u'/></source>
      <target dev='vdb' bus='virtio'/></disk>
    <disk type='block' device='disk'><driver name='qemu' type='raw'/><source dev='/dev/vg/lv'/><target dev='sda' bus='scsi'/><readonly/><shareable/></disk>
    <disk type='file' device='cdrom'><source file='/i.iso'/><target dev='sdb' bus='sata'/></disk>
    <disk type='network' device='disk'><source protocol='iscsi' name='x'/><target dev='vdc' bus='virtio'/></disk>
    <interface type='bridge'><mac address='52:54:00:00:00:01'/><source bridge='br0'/><model type='virtio'/></interface>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
  </devices>
  <seclabel type='dynamic' model='dac'><label>+64055:+993</label></seclabel>
</domain>`;

test("a domain is read", () => {
  const domain = parseDomain(xml);
  expect(domain).toMatchObject({
    name: "web & db",
    memoryBytes: 128 * 1024 ** 2,
    vcpus: 2,
    architecture: "aarch64",
    firmware: "uefi",
    nvram: "/n/v.fd",
    otherTargets: ["sdb"],
    qemuOwner: { user: "64055", group: "993" },
    hasAgentChannel: true,
    nics: [{ mac: "52:54:00:00:00:01", network: "br0", model: "virtio" }],
  });
  expect(domain.disks).toMatchObject([
    {
      target: "vda",
      format: "qcow2",
      serial: "S1",
      source: { kind: "file", path: "/d/top.qcow2" },
      backing: [{ format: "raw", path: "/d/base.raw" }],
      backingIsComplete: true,
    },
    {
      target: "vdb",
      source: { kind: "rbd", image: "p/i", configFile: "/c.conf", user: "u", monitors: ["m:3300"] },
    },
    {
      target: "sda",
      readOnly: true,
      shareable: true,
      source: { kind: "block", path: "/dev/vg/lv" },
    },
    { target: "vdc", source: { kind: "other" } },
  ]);
});

test("a disk's image is exchanged and nothing else", () => {
  const changed = withDiskImage(xml, "vda", { path: "/d/<new>.raw", format: "raw" });
  expect(changed).toContain('file="/d/&lt;new&gt;.raw"');
  expect(changed).not.toContain("backingStore");
  const before = parseDomain(xml);
  const after = parseDomain(changed);
  expect(after.disks[0]).toMatchObject({ format: "raw", source: { path: "/d/<new>.raw" } });
  expect({ ...after, disks: after.disks.slice(1) }).toEqual({
    ...before,
    disks: before.disks.slice(1),
  });
});

test("a file's place is taken by a block device, and back", () => {
  const onDevice = withDiskImage(xml, "vda", { path: "/dev/vg/lv2", format: "raw" });
  expect(parseDomain(onDevice).disks[0]?.source).toEqual({ kind: "block", path: "/dev/vg/lv2" });
  expect(onDevice).not.toContain("/d/top.qcow2");
  const back = withDiskImage(onDevice, "vda", { path: "/d/top.qcow2", format: "qcow2" });
  expect(parseDomain(back).disks[0]?.source).toEqual({ kind: "file", path: "/d/top.qcow2" });
});

test("backup and checkpoint documents", () => {
  const disks = [
    { target: "vda", scratch: "/s/a", incremental: "c1" },
    { target: "vdb", scratch: "/s/b", incremental: undefined },
  ];
  expect(backupXml("/s/x.sock", disks)).toBe(
    '<domainbackup mode="pull"><server transport="unix" socket="/s/x.sock"/><disks>' +
      '<disk name="vda" backup="yes" type="file" backupmode="incremental" incremental="c1" exportname="vda" exportbitmap="backup-vda"><scratch file="/s/a"/></disk>' +
      '<disk name="vdb" backup="yes" type="file" backupmode="full" exportname="vdb"><scratch file="/s/b"/></disk>' +
      "</disks></domainbackup>",
  );
  expect(checkpointXml("c2", [{ target: "vda", tracked: true }])).toBe(
    '<domaincheckpoint><name>c2</name><disks><disk name="vda" checkpoint="bitmap"/></disks></domaincheckpoint>',
  );
});
