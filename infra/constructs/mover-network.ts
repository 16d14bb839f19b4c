import { RemovalPolicy } from "aws-cdk-lib";
import {
  FlowLogDestination,
  GatewayVpcEndpointAwsService,
  type ISecurityGroup,
  type IVpc,
  SecurityGroup,
  Subnet,
  type SubnetSelection,
  SubnetType,
  Vpc,
} from "aws-cdk-lib/aws-ec2";
import { LogGroup, RetentionDays } from "aws-cdk-lib/aws-logs";
import { Construct } from "constructs";
import type { Installation } from "../installation.ts";

export type MoverNetworkProps = { readonly existing: Installation["network"] };

/**
 * Where movers of this account run. They connect outwards only, so nothing is let in. Without a network of the
 * customer's they get public subnets: those cost nothing while idle, as a NAT gateway would.
 */
export class MoverNetwork extends Construct {
  readonly vpc: IVpc;
  readonly subnets: SubnetSelection;
  readonly assignPublicIp: boolean;
  readonly securityGroup: ISecurityGroup;

  constructor(scope: Construct, id: string, { existing }: MoverNetworkProps) {
    super(scope, id);
    if (existing === undefined) {
      this.vpc = this.#createVpc();
      this.subnets = { subnetType: SubnetType.PUBLIC };
    } else {
      const { vpcId, availabilityZones, subnetIds } = existing;
      this.vpc = Vpc.fromVpcAttributes(this, "Vpc", { vpcId, availabilityZones });
      this.subnets = {
        subnets: subnetIds.map((subnetId) => Subnet.fromSubnetId(this, subnetId, subnetId)),
      };
    }
    this.assignPublicIp = existing === undefined;
    this.securityGroup = new SecurityGroup(this, "SecurityGroup", {
      vpc: this.vpc,
      description: "Holdfast movers: outward connections only",
      allowAllOutbound: true,
    });
  }

  #createVpc(): IVpc {
    const vpc = new Vpc(this, "Vpc", {
      maxAzs: 2,
      natGateways: 0,
      subnetConfiguration: [
        { name: "movers", subnetType: SubnetType.PUBLIC, mapPublicIpOnLaunch: false },
      ],
    });
    // Backup data and catalog stay inside AWS, and cost no transfer.
    vpc.addGatewayEndpoint("S3", { service: GatewayVpcEndpointAwsService.S3 });
    vpc.addGatewayEndpoint("DynamoDb", { service: GatewayVpcEndpointAwsService.DYNAMODB });
    const logGroup = new LogGroup(this, "FlowLog", {
      retention: RetentionDays.ONE_MONTH,
      removalPolicy: RemovalPolicy.DESTROY,
    });
    vpc.addFlowLog("FlowLog", { destination: FlowLogDestination.toCloudWatchLogs(logGroup) });
    // CDK's class and interface differ under exactOptionalPropertyTypes (an optional getter).
    return vpc as IVpc;
  }
}
