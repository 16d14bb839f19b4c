import type { Provider } from "@holdfast/shared/contracts/catalog-items";
import type { Catalog } from "@holdfast/shared/ports/catalog";
import type { Clock } from "@holdfast/shared/ports/clock";
import type { Driver } from "@holdfast/shared/ports/driver";
import type { Parameters } from "@holdfast/shared/ports/parameters";
import type { HostAddress, Transports } from "@holdfast/shared/ports/transport";
import { createLibvirtDriver } from "@holdfast/shared/providers/libvirt/driver";
import { type LimitBook, withThrottledDisks } from "./limits/limit-book.ts";

/** The driver for a provider, with its secret read anew each time, so that a changed credential takes effect at once. */
export function createDriverOpener(options: {
  readonly catalog: Catalog;
  readonly parameters: Parameters;
  readonly transports: Transports;
  readonly clock: Clock;
  readonly limits?: Pick<LimitBook, "provider">;
}): (providerId: string) => Promise<Driver> {
  const { catalog, parameters, transports, clock } = options;
  return async (providerId) => {
    const provider = await catalog.getProvider(providerId);
    const driver = await open(provider);
    if (options.limits === undefined) return driver;
    return withThrottledDisks(driver, options.limits.provider(provider));
  };

  async function open(provider: Provider): Promise<Driver> {
    const secret = await parameters.getSecret(provider.secretParameter);
    const { settings } = provider;
    switch (settings.kind) {
      case "libvirt":
        return createLibvirtDriver({
          transports,
          host: sshAddress(settings.ssh, secret),
          settings,
          clock,
        });
      default:
        return settings.kind satisfies never;
    }
  }
}

function sshAddress(ssh: Provider["settings"]["ssh"], secret: string): HostAddress {
  return {
    kind: "ssh",
    host: ssh.host,
    port: ssh.port,
    user: ssh.user,
    hostKeys: ssh.hostKeys,
    login:
      ssh.login === "key"
        ? { kind: "key", privateKey: secret }
        : { kind: "password", password: secret },
  };
}
