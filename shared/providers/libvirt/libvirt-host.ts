import type { LibvirtSettings } from "../../contracts/catalog-items.ts";
import { createGuestAgent, type GuestAgent } from "../../kvm-host/guest-agent.ts";
import { createVirsh, type Virsh } from "../../kvm-host/virsh.ts";
import type { Clock } from "../../ports/clock.ts";
import type { HostConnection } from "../../ports/host.ts";
import type { HostAddress, Transports } from "../../ports/transport.ts";

/** What the parts of the driver work with. */
export type LibvirtDriverOptions = {
  readonly transports: Transports;
  readonly host: HostAddress;
  readonly settings: LibvirtSettings;
  readonly clock: Clock;
};

/** One connection to the host for one call of the driver. */
export type LibvirtHost = AsyncDisposable & {
  readonly connection: HostConnection;
  readonly virsh: Virsh;
  readonly uri: string;
  readonly clock: Clock;
  readonly transports: Transports;
  /** For sockets and scratch files. */
  readonly scratchFolder: string;
  /** For overlays; undefined: beside the disks. */
  readonly overlayFolder: string | undefined;
  agent(uuid: string): GuestAgent;
};

const scratchFolderDefault = "/var/tmp/holdfast";

export async function openLibvirtHost(
  options: LibvirtDriverOptions,
  signal?: AbortSignal,
): Promise<LibvirtHost> {
  const { transports, settings, clock } = options;
  const connection = await transports.connectHost(
    options.host,
    signal === undefined ? {} : { signal },
  );
  const virsh = createVirsh(connection, settings.uri, signal);
  return {
    connection,
    virsh,
    uri: settings.uri,
    clock,
    transports,
    scratchFolder: settings.scratchFolder ?? scratchFolderDefault,
    overlayFolder: settings.scratchFolder,
    agent: (uuid) => createGuestAgent(virsh, uuid, clock),
    [Symbol.asyncDispose]: () => connection[Symbol.asyncDispose](),
  };
}

/** The job's own folder on the host. */
export function jobFolder(host: LibvirtHost, jobId: string): string {
  return `${host.scratchFolder}/${jobId}`;
}
