import { isFailure } from "../../domain/failure.ts";
import type { DriverCall, InventoryItem } from "../../ports/driver.ts";
import { chooseStrategy, parseVersions } from "./choose-strategy.ts";
import type { LibvirtHost } from "./libvirt-host.ts";
import { describeVm, lookAtVm } from "./vm-facts.ts";

/** Every domain of the host: running or stopped, persistent or transient. */
export async function* listInventory(
  host: LibvirtHost,
  { signal, logger }: DriverCall,
): AsyncIterable<InventoryItem> {
  const versions = parseVersions(await host.virsh.run(["version"]));
  const uuids = (await host.virsh.run(["list", "--all", "--uuid"])).split(/\s+/).filter(Boolean);
  for (const uuid of uuids) {
    signal.throwIfAborted();
    try {
      const facts = await lookAtVm(host, uuid);
      const { strategy, reason } = chooseStrategy(facts, facts.disks, versions, "auto");
      yield {
        externalId: uuid,
        power: facts.power,
        description: describeVm(facts),
        strategy,
        strategyReason: reason,
      };
    } catch (error) {
      // Removed between the list and the look: that is no failure of the inventory.
      if (!isFailure(error, "vm.gone")) throw error;
      logger.info("vm went away during the inventory", { uuid });
    }
  }
}
