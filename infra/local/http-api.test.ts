import { expect, test } from "vitest";
import { startTestStack } from "./test-stack.ts";

type Event = {
  readonly rawPath: string;
  readonly body?: string;
  readonly isBase64Encoded: boolean;
};

test("a request becomes a payload 2.0 event, and the answer is mapped back", async () => {
  const events: Event[] = [];
  const Api = (event: unknown) => {
    events.push(event as Event);
    return {
      statusCode: 201,
      headers: { "content-type": "application/json", "x-own": "1" },
      cookies: ["a=1", "b=2"],
      body: '{"ok":true}',
    };
  };
  await using stack = await startTestStack({ handlers: { Api } });
  const response = await fetch(`${stack.api}/v1/vms/a%20b?tag=x&tag=y&q=%C3%BC`, {
    method: "POST",
    headers: { "content-type": "application/json", authorization: "Bearer t", "X-Mixed": "M" },
    body: '{"n":1}',
  });
  expect(response.status).toBe(201);
  expect(response.headers.get("x-own")).toBe("1");
  expect(response.headers.getSetCookie()).toEqual(["a=1", "b=2"]);
  expect(await response.json()).toEqual({ ok: true });
  expect(events).toMatchObject([
    {
      version: "2.0",
      routeKey: "$default",
      rawPath: "/v1/vms/a%20b",
      rawQueryString: "tag=x&tag=y&q=%C3%BC",
      queryStringParameters: { tag: "x,y", q: "ü" },
      headers: { authorization: "Bearer t", "x-mixed": "M" },
      requestContext: { http: { method: "POST", path: "/v1/vms/a%20b" } },
      body: '{"n":1}',
      isBase64Encoded: false,
    },
  ]);
});

test("bytes that are no text cross as base64, in both directions", async () => {
  const Api = (event: unknown) => {
    const { body, isBase64Encoded } = event as Event;
    return { statusCode: 200, body, isBase64Encoded };
  };
  await using stack = await startTestStack({ handlers: { Api } });
  const bytes = Uint8Array.of(0, 255, 128, 10);
  const headers = { "content-type": "application/octet-stream" };
  const response = await fetch(`${stack.api}/v1/raw`, { method: "PUT", headers, body: bytes });
  expect(new Uint8Array(await response.arrayBuffer())).toEqual(bytes);
});

test("a function that fails answers 500 and says nothing of its reason", async () => {
  const Api = () => {
    throw new Error("secret reason");
  };
  await using stack = await startTestStack({ handlers: { Api } });
  const response = await fetch(`${stack.api}/v1/x`);
  expect(response.status).toBe(500);
  expect(await response.text()).toBe('{"message":"Internal Server Error"}');
});
