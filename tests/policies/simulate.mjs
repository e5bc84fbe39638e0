// Renders template.yaml as CloudFormation would, for sets of parameters, and asks whether its policies allow calls.
// Standard input: {"template": "…", "readers": "…", "sets": [{"name", "partition", "region", "parameters", "certificates"}],
// "calls": [{"by", "do", "on", "with", "only", "by-lambda", "head", "plain"}]}. A set may have more: "stack" is the stack's name;
// "longest" takes the longest value of each parameter; "readersIn" is the region in which the template "readers" gives instances
// their policies, in place of ReaderPolicy, for the "certificates", or for "patterns" that match them.
// Standard output: {"answers": [{"set", "call", "isFirst", "allowed", "request"}], "grants": [{"set", "by", "statement", "grant",
// "used"}], "sizes": [{"set", "of", "is", "size", "limit"}]}.
import { readFileSync } from 'node:fs'
import { runSimulation } from '@cloud-copilot/iam-simulate'
import { parse } from 'yaml'

const ACCOUNT = '123456789012'
// Whose instances have a policy like that of the stack.
const GUEST = '210987654321'
const VERSION = '20260903T060112Z-5f0c11d2'
// What CloudFormation puts behind the name of a resource.
const RANDOM = 'A1B2C3D4E5F6'

const { template: path, readers: readersPath, sets, calls } = JSON.parse(readFileSync(0, 'utf8'))
const [template, readers] = [path, readersPath].map((file) => parse(readFileSync(file, 'utf8'), { customTags: intrinsics() }))

const answers = []
const grants = []
const sizes = []
for (const set of sets) {
  const stack = render(set)
  const used = new Set()
  for (const [index, call] of calls.entries()) {
    if (call.only && !call.only.includes(set.name)) continue
    for (const request of requests(call, set, stack)) {
      const policies = stack.policies[call.by]
      const result = await runSimulation(simulation(request, call.by, policies, stack), {})
      if (result.resultType === 'error') throw new Error(`${set.name}, ${JSON.stringify(call)}: ${JSON.stringify(result.errors)}`)
      const allowed = result.overallResult === 'Allowed'
      answers.push({ set: set.name, call: index, isFirst: request.isFirst === true, allowed, request: `${request.action} on ${request.resource}` })
      if (allowed) for (const grant of matching(policies, request)) used.add(grant)
    }
  }
  for (const [by, policies] of Object.entries(stack.policies)) {
    if (by === 'guest') continue
    for (const { statement, grant } of all(policies)) {
      grants.push({ set: set.name, by, statement, grant, used: used.has(`${by} ${statement} ${grant}`) })
    }
  }

  function matching(policies, { action, resource }) {
    return policies.flatMap(({ by, policy }) => policy.Statement.filter((one) => one.Effect === 'Allow').flatMap((one) => {
      const actions = list(one.Action).filter((pattern) => fits(pattern.toLowerCase(), action.toLowerCase()))
      const resources = list(one.Resource).filter((pattern) => fits(pattern.replaceAll('${aws:userid}', stack.userid), resource))
      return actions.length && resources.length ? [...actions, ...resources].map((grant) => `${by} ${one.Sid} ${grant}`) : []
    }))
  }
}
for (const set of sets) sizes.push(...measured(set.name, render(set)))
process.stdout.write(JSON.stringify({ answers, grants, sizes }))

// What AWS limits. IAM counts policies without white space, those in a role together; Lambda counts the environment as JSON.
function measured(set, { policies, environments }) {
  const length = (policy) => JSON.stringify(policy).length
  const managed = Object.values(policies).flat().filter(({ isManaged }) => isManaged)
  const inline = Object.entries(policies).map(([by, all]) => [by, all.filter(({ isManaged }) => !isManaged)])
  return [
    ...managed.map(({ name, policy }) => ({ of: name, is: 'managed policy', size: length(policy), limit: 6144 })),
    ...inline.map(([by, all]) => ({ of: by, is: 'policies in a role', size: all.reduce((sum, { policy }) => sum + length(policy), 0), limit: 10240 })),
    ...Object.entries(environments).map(([of, variables]) => ({ of, is: 'environment', size: length(variables), limit: 4096 }))
  ].map((size) => ({ set, ...size }))
}

function all(policies) {
  return policies.flatMap(({ policy }) => policy.Statement.filter((one) => one.Effect === 'Allow')
    .flatMap((one) => [...new Set([...list(one.Action), ...list(one.Resource)])]
      .filter((grant) => grant !== '*').map((grant) => ({ statement: one.Sid, grant }))))
}

// What AWS is asked when the code makes this call: also the service that it calls asks KMS in the caller's name.
function requests(call, set, stack) {
  const { region, partition } = set
  const names = set.certificates ?? ['shop.example']
  const certificates = JSON.stringify(call).includes('NAME') ? names : [undefined]
  return certificates.flatMap((name) => {
    const resource = stack.fill((call.on ?? '*').replaceAll('NAME', name).replaceAll('VERSION', VERSION))
    const context = { 'aws:SecureTransport': 'true', 'aws:userid': stack.userid, 'aws:SourceAccount': ACCOUNT }
    if (stack.functions[call.by] && !call['by-lambda']) context['lambda:SourceFunctionArn'] = stack.functions[call.by]
    for (const [key, value] of Object.entries(call.with ?? {})) {
      context[key] = typeof value === 'string' ? stack.fill(value.replaceAll('NAME', name)) : value
    }
    const kms = (actions, key, service) => actions.map((action) => ({
      action, resource: stack.arns[key], context: { ...context, 'kms:ViaService': `${service}.${region}.${suffixOf(partition)}` }
    }))
    const object = resource.startsWith(`${stack.arns.Bucket}/`)
    const isSecret = object && /^(accounts|orders)\//.test(resource.slice(stack.arns.Bucket.length + 1)) && !call.plain
    const key = isSecret ? 'SecretsKey' : 'Key'
    if (call.do === 's3:PutObject' && isSecret) {
      context['s3:x-amz-server-side-encryption-aws-kms-key-id'] = stack.arns.SecretsKey
    }
    const first = { action: call.do, resource, context, isFirst: true }
    switch (call.do) {
      case 's3:GetObject': return call.head ? [first] : [first, ...kms(['kms:Decrypt'], key, 's3')]
      case 's3:PutObject': return [first, ...kms(['kms:GenerateDataKey'], key, 's3')]
      case 'sns:Publish': return [first, ...kms(['kms:GenerateDataKey', 'kms:Decrypt'], 'Key', 'sns')]
      default: return [first]
    }
  })
}

// For URLs, and in the conditions of KMS: its guide has China's. Whether services there really use it, no document says,
// nor what those of the European Sovereign Cloud use.
function suffixOf(partition) {
  return { 'aws-cn': 'amazonaws.com.cn', 'aws-eusc': 'amazonaws.eu' }[partition] ?? 'amazonaws.com'
}

function simulation({ action, resource, context }, by, policies, stack) {
  return {
    request: { principal: stack.principal(by), action, resource: { resource, accountId: ACCOUNT }, contextVariables: context },
    identityPolicies: policies.map(({ name, policy }) => ({ name, policy })),
    serviceControlPolicies: [], resourceControlPolicies: [],
    resourcePolicy: stack.resourcePolicy(action, resource)
  }
}

function render(set) {
  const { partition, region } = set
  const stackName = set.stack ?? 'neverlapse'
  const arns = {}
  for (const [id, { Type }] of Object.entries(template.Resources)) {
    const at = (service, rest, where = `${region}:${ACCOUNT}`) => `arn:${partition}:${service}:${where}:${rest}`
    // The stack's name is cut where the whole would be longer than such a name may be.
    const named = (longest) => `${stackName.slice(0, longest - id.length - RANDOM.length - 2)}-${id}-${RANDOM}`
    arns[id] = {
      'AWS::S3::Bucket': () => at('s3', named(63).toLowerCase(), ':'),
      'AWS::KMS::Key': () => at('kms', `key/${id === 'Key' ? '11111111' : '22222222'}-1111-4111-8111-111111111111`),
      'AWS::SNS::Topic': () => at('sns', named(256)),
      'AWS::SQS::Queue': () => at('sqs', named(80)),
      'AWS::Serverless::Function': () => at('lambda', `function:${named(64)}`),
      'AWS::Logs::LogGroup': () => at('logs', `log-group:${named(512)}:*`),
      'AWS::IAM::Role': () => at('iam', `role/${named(64)}`, `:${ACCOUNT}`),
      'AWS::IAM::ManagedPolicy': () => at('iam', `policy/${named(128)}`, `:${ACCOUNT}`)
    }[Type]?.() ?? `${id}-1`
  }
  const parameters = Object.fromEntries(Object.entries(template.Parameters).map(([name, parameter]) =>
    [name, set.parameters?.[name] ?? (set.longest ? longest(parameter) : parameter.Default)]))
  const { resolve, condition } = evaluator(template, { partition, region, stackName, parameters, arns })

  const made = (id) => { const { Condition } = template.Resources[id]; return !Condition || condition(Condition) }
  const managed = (id, by) => ({ by, name: id, isManaged: true, policy: resolve(template.Resources[id].Properties.PolicyDocument) })
  const role = (id, by) => {
    const { Policies, ManagedPolicyArns } = template.Resources[id].Properties
    const attached = list(resolve(ManagedPolicyArns)).map((arn) => Object.keys(arns).find((name) => arns[name] === arn))
    return [...resolve(Policies).map((one) => ({ by, name: one.PolicyName, policy: one.PolicyDocument })), ...attached.map((name) => managed(name, by))]
  }
  const services = { cloudwatch: 'cloudwatch.amazonaws.com', sns: 'sns.amazonaws.com' }
  const userid = 'AROAEXAMPLEEXAMPLE:i-0a1b2c3d4e5f60718'
  const resourcePolicies = Object.keys(template.Resources).filter(made).flatMap((id) => {
    const properties = template.Resources[id].Properties
    if (template.Resources[id].Type === 'AWS::KMS::Key') return [[arns[id], resolve(properties.KeyPolicy)]]
    if (!/::(BucketPolicy|TopicPolicy|QueuePolicy)$/.test(template.Resources[id].Type)) return []
    const owners = list(resolve(properties.Bucket ?? properties.Topics ?? properties.Queues))
    return owners.map((owner) => [Object.values(arns).find((arn) => arn === owner || arn.split(':').pop() === owner), resolve(properties.PolicyDocument)])
  })
  const instance = (by) => set.readersIn ? readersOf(set, arns, by) : [managed('ReaderPolicy', by)]
  const environment = (id) => Object.fromEntries(Object.entries(resolve(template.Resources[id].Properties.Environment.Variables)).map(([name, value]) => [name, String(value)]))
  return {
    arns, userid,
    environments: { Probe: environment('Probe'), Renewer: environment('Renewer') },
    functions: { probe: arns.Probe, renewer: arns.Renewer },
    fill: (text) => text.replace(/\{(\w+)\}/g, (_, name) => ({ partition, region, account: ACCOUNT, userid, stack: stackName }[name] ?? arns[name] ?? '?')),
    policies: {
      probe: role('ProbeRole', 'probe'), renewer: role('RenewerRole', 'renewer'), schedule: role('ScheduleRole', 'schedule'),
      instance: instance('instance'), guest: instance('guest'), operator: [managed('OperatorPolicy', 'operator')],
      cloudwatch: [], sns: []
    },
    principal: (by) => services[by] ?? `arn:${partition}:iam::${by === 'guest' ? GUEST : ACCOUNT}:role/${by}`,
    resourcePolicy: (action, resource) => resourcePolicies.find(([arn]) => resource === arn || (action.startsWith('s3:') && resource.startsWith(`${arn}/`)))?.[1]
  }
}

// The policies that the readers' template puts into the role of instances.
function readersOf(set, arns, by) {
  const parameters = { Role: 'web', Certificates: (set.patterns ?? set.certificates).join(','), BucketName: arns.Bucket.split(':').pop(), KeyArn: arns.Key }
  const { resolve } = evaluator(readers, { partition: set.partition, region: set.readersIn, stackName: 'web-readers', parameters, arns: {} })
  const resources = Object.entries(readers.Resources).flatMap(([id, body]) => id.startsWith('Fn::ForEach::') ? unrolled(body, resolve) : [body])
  return resources.map((resource) => resolve(resource.Properties)).map(({ PolicyName, PolicyDocument }) => ({ by, name: PolicyName, policy: PolicyDocument }))
}

// Fn::ForEach: the fragment for each of the values.
function unrolled([name, values, fragment], resolve) {
  const text = JSON.stringify(Object.values(fragment)[0])
  return resolve(values).map((value) => JSON.parse(text.replaceAll(`\${${name}}`, value)))
}

// CloudFormation's functions, for one template with its parameters. The ARNs are those of its resources.
function evaluator(template, { partition, region, stackName, parameters, arns }) {
  const suffix = suffixOf(partition)
  const pseudo = {
    'AWS::Partition': partition, 'AWS::Region': region, 'AWS::AccountId': ACCOUNT, 'AWS::URLSuffix': suffix,
    'AWS::StackName': stackName, 'AWS::NoValue': undefined
  }
  const values = Object.fromEntries(Object.entries(template.Parameters).map(([name, { Type }]) =>
    [name, Type === 'CommaDelimitedList' ? String(parameters[name]).split(',') : String(parameters[name])]))

  function resolve(node) {
    if (Array.isArray(node)) return node.map(resolve).filter((one) => one !== undefined)
    if (node === null || typeof node !== 'object') return node
    const [[name, argument], ...more] = Object.entries(node)
    if (more.length === 0 && (name === 'Ref' || name === 'Condition' || name.startsWith('Fn::'))) {
      const known = functions[name]
      if (known) return known(argument)
    }
    const entries = Object.entries(node).map(([key, value]) => [key, resolve(value)])
    return Object.fromEntries(entries.filter(([, value]) => value !== undefined))
  }
  const condition = (name) => resolve(template.Conditions[name])
  const ref = (name) => {
    if (name in pseudo) return pseudo[name]
    if (name in values) return values[name]
    if (!(name in arns)) throw new Error(`${name} is not known`)
    return template.Resources[name].Type === 'AWS::S3::Bucket' ? arns[name].split(':').pop() : arns[name]
  }
  const functions = {
    Ref: ref,
    Condition: (name) => (typeof name === 'string' && name in template.Conditions ? condition(name) : resolve(name)),
    'Fn::GetAtt': (what) => { const [id] = list(what).join('.').split('.'); return arns[id] },
    'Fn::Sub': (what) => {
      const [text, own] = Array.isArray(what) ? [what[0], resolve(what[1])] : [what, {}]
      return text.replace(/\$\{(!?)([^}]+)\}/g, (_, literal, name) => literal ? `\${${name}}` : own[name] ?? (name.endsWith('.Arn') ? arns[name.slice(0, -4)] : ref(name)))
    },
    'Fn::Join': ([by, parts]) => resolve(parts).join(by),
    'Fn::Split': ([by, text]) => resolve(text).split(by),
    'Fn::Select': ([index, from]) => resolve(from)[index],
    'Fn::If': ([name, yes, no]) => resolve(condition(name) ? yes : no),
    'Fn::Equals': ([one, other]) => String(resolve(one)) === String(resolve(other)),
    'Fn::Not': ([one]) => !resolve(one),
    'Fn::And': (all) => all.map(resolve).every(Boolean),
    'Fn::Or': (all) => all.map(resolve).some(Boolean)
  }
  return { resolve, condition }
}

// CloudFormation itself takes 4,096 characters.
function longest({ Type, AllowedValues, MaxValue, MaxLength }) {
  if (AllowedValues) return AllowedValues.reduce((one, other) => String(one).length < String(other).length ? other : one)
  return Type === 'Number' ? MaxValue : 'x'.repeat(MaxLength ?? 4096)
}

// !Sub and its kin, as the long forms.
function intrinsics() {
  const names = ['Sub', 'GetAtt', 'Join', 'Split', 'Select', 'If', 'Equals', 'Not', 'And', 'Or']
  const long = [...names.map((name) => [`!${name}`, `Fn::${name}`]), ['!Ref', 'Ref'], ['!Condition', 'Condition']]
  return long.flatMap(([tag, name]) => [
    { tag, resolve: (text) => ({ [name]: text }) },
    { tag, collection: 'seq', resolve: (node) => ({ [name]: node.toJSON() }) },
    { tag, collection: 'map', resolve: (node) => ({ [name]: node.toJSON() }) }
  ])
}

function fits(pattern, text) {
  const escaped = pattern.replace(/[.+^${}()|[\]\\]/g, '\\$&').replaceAll('*', '.*').replaceAll('?', '.')
  return new RegExp(`^${escaped}$`).test(text)
}

function list(value) {
  return value === undefined ? [] : Array.isArray(value) ? value : [value]
}
