import type { MoverSettings } from "@holdfast/shared/contracts/settings";
import { CfnOutput, CfnParameter, Stack, type StackProps } from "aws-cdk-lib";
import { Cluster, ContainerInsights } from "aws-cdk-lib/aws-ecs";
import type { Code } from "aws-cdk-lib/aws-lambda";
import type { Construct } from "constructs";
import type { z } from "zod";
import { ControlPlane } from "../constructs/control-plane.ts";
import { HttpApi } from "../constructs/http-api.ts";
import type { WorkflowKind } from "../constructs/job-state-machine.ts";
import { MoverNetwork } from "../constructs/mover-network.ts";
import { createMoverPolicy } from "../constructs/mover-policy.ts";
import { MoverService } from "../constructs/mover-service.ts";
import { SiteQueue } from "../constructs/site-queue.ts";
import type { FunctionEntry } from "../function-table.ts";
import type { Installation, Site } from "../installation.ts";
import type { StorageStack } from "./storage-stack.ts";

export type BackendStackProps = StackProps & {
  readonly installation: Installation;
  readonly storage: StorageStack;
  /** How a function's entry file becomes code. */
  readonly bundle: (entry: FunctionEntry) => Code;
  /** The ASL text of a kind of job. */
  readonly definitionOf: (kind: WorkflowKind) => string;
};

/** Everything that can be deleted and deployed again without loss: the control plane, the sites' queues and their movers. */
export class BackendStack extends Stack {
  constructor(scope: Construct, id: string, props: BackendStackProps) {
    super(scope, id, props);
    const { installation, storage } = props;
    const { name, sites } = installation;
    const parameterPrefix = `/${name}`;
    const siteQueueNamePrefix = `${name}-site-`;
    const queues = new Map(
      sites.map(({ siteId }) => [
        siteId,
        new SiteQueue(this, `Site-${siteId}`, { queueName: `${siteQueueNamePrefix}${siteId}` }),
      ]),
    );
    const controlPlane = new ControlPlane(this, "ControlPlane", {
      name,
      catalog: storage.catalog,
      siteQueues: [...queues.values()].map(({ queue }) => queue),
      siteQueueNamePrefix,
      parameterPrefix,
      gatewayAuthorises: installation.jwt !== undefined,
      bundle: props.bundle,
      definitionOf: props.definitionOf,
    });
    const handler = controlPlane.functions.get("Api");
    if (handler === undefined) throw new Error("infra/function-table.ts has no Api");
    const api = new HttpApi(this, "HttpApi", { handler, jwt: installation.jwt });
    new CfnOutput(this, "ApiUrl", { value: api.url });
    new CfnOutput(this, "RepositoryBucket", { value: storage.repositoryBucket.bucketName });

    const inAccount = this.#prepareMovers(props);
    for (const site of sites) {
      const queue = queues.get(site.siteId)?.queue;
      if (queue === undefined) throw new Error(`site ${site.siteId} has no queue`);
      const policy = createMoverPolicy(this, `MoverPolicy-${site.siteId}`, {
        repositoryBucket: storage.repositoryBucket,
        catalog: storage.catalog,
        queue,
        stateMachines: controlPlane.stateMachines.map(({ stateMachine }) => stateMachine),
        parameterPrefix,
      });
      new CfnOutput(this, `MoverPolicyArn-${site.siteId}`, { value: policy.managedPolicyArn });
      new CfnOutput(this, `SiteQueueUrl-${site.siteId}`, { value: queue.queueUrl });
      if (site.movers === "on-premises" || inAccount === undefined) continue;
      new MoverService(this, `Movers-${site.siteId}`, {
        ...inAccount,
        images: storage.moverImages,
        policy,
        queue,
        moversMin: site.moversMin,
        moversMax: site.moversMax,
        environment: this.#moverSettings(site, { storage, queueUrl: queue.queueUrl }),
      });
    }
  }

  /** Cluster, network and the image's tag; only where a site has its movers in this account. */
  #prepareMovers({ installation }: BackendStackProps) {
    if (!installation.sites.some((site) => site.movers === "ecs")) return undefined;
    const imageTag = new CfnParameter(this, "MoverImageTag", {
      description: "Tag of the mover's image in the repository of the storage stack.",
      allowedPattern: "[A-Za-z0-9_][A-Za-z0-9._-]{0,127}",
    });
    const network = new MoverNetwork(this, "MoverNetwork", { existing: installation.network });
    const cluster = new Cluster(this, "MoverCluster", {
      vpc: network.vpc,
      containerInsightsV2: ContainerInsights.ENABLED,
      enableFargateCapacityProviders: true,
    });
    return { network, cluster, imageTag: imageTag.valueAsString };
  }

  #moverSettings(
    { siteId }: Site,
    { storage, queueUrl }: { readonly storage: StorageStack; readonly queueUrl: string },
  ) {
    return {
      CATALOG_TABLE: storage.catalog.table.tableName,
      SITE_ID: siteId,
      SITE_QUEUE_URL: queueUrl,
      TASKS_MAX: "4",
      VISIBILITY_SECONDS: "45",
    } satisfies z.input<typeof MoverSettings>;
  }
}
