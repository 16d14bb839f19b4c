import { RemovalPolicy, Validations } from "aws-cdk-lib";
import {
  CfnStage,
  HttpApi as GatewayApi,
  HttpMethod,
  type IHttpRouteAuthorizer,
} from "aws-cdk-lib/aws-apigatewayv2";
import { HttpJwtAuthorizer } from "aws-cdk-lib/aws-apigatewayv2-authorizers";
import { HttpLambdaIntegration } from "aws-cdk-lib/aws-apigatewayv2-integrations";
import type { Function as LambdaFunction } from "aws-cdk-lib/aws-lambda";
import { LogGroup, RetentionDays } from "aws-cdk-lib/aws-logs";
import { Construct } from "constructs";
import type { Installation } from "../installation.ts";

const requestsPerSecondMax = 50;
const requestsBurstMax = 100;

export type HttpApiProps = {
  readonly handler: LambdaFunction;
  readonly jwt: Installation["jwt"];
};

/** The API: every request goes to one function, which knows the routes. With an issuer of tokens the gateway checks them first. */
export class HttpApi extends Construct {
  readonly url: string;

  constructor(scope: Construct, id: string, { handler, jwt }: HttpApiProps) {
    super(scope, id);
    const api = new GatewayApi(this, "Api", { createDefaultStage: false });
    const routes = api.addRoutes({
      path: "/{path+}",
      methods: [HttpMethod.ANY],
      integration: new HttpLambdaIntegration("Handler", handler),
      ...(jwt === undefined ? {} : { authorizer: jwtAuthorizer(jwt) }),
    });
    const log = new LogGroup(this, "AccessLog", {
      retention: RetentionDays.ONE_YEAR,
      removalPolicy: RemovalPolicy.RETAIN,
    });
    new CfnStage(this, "Stage", {
      apiId: api.apiId,
      stageName: "$default",
      autoDeploy: true,
      accessLogSettings: { destinationArn: log.logGroupArn, format: accessLogFormat },
      defaultRouteSettings: {
        throttlingRateLimit: requestsPerSecondMax,
        throttlingBurstLimit: requestsBurstMax,
      },
    });
    this.url = api.apiEndpoint;
    if (jwt !== undefined) return;
    for (const route of routes) {
      Validations.of(route).acknowledge({
        id: "AwsSolutions-APIG4",
        reason:
          "Without an issuer of tokens the function itself authorises every call: one bearer token, compared with its hash in the parameter store.",
      });
    }
  }
}

function jwtAuthorizer({
  issuer,
  audience,
}: NonNullable<Installation["jwt"]>): IHttpRouteAuthorizer {
  return new HttpJwtAuthorizer("Jwt", issuer, { jwtAudience: audience });
}

/** Who called what, when and with which outcome; nothing of bodies or headers. */
const accessLogFormat = JSON.stringify({
  time: "$context.requestTimeEpoch",
  requestId: "$context.requestId",
  ip: "$context.identity.sourceIp",
  method: "$context.httpMethod",
  path: "$context.path",
  status: "$context.status",
  subject: "$context.authorizer.claims.sub",
  latencyMs: "$context.responseLatency",
});
