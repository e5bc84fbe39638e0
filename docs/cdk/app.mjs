// neverlapse as a part of a CDK app: the packaged template as a nested stack, with its reader policy on a role of yours.
import { App, CfnOutput, CfnStack, Fn, Stack } from 'aws-cdk-lib'
import { ManagedPolicy, Role, ServicePrincipal } from 'aws-cdk-lib/aws-iam'
import { Asset } from 'aws-cdk-lib/aws-s3-assets'

const stack = new Stack(new App(), 'certificates')

// What `sam package` wrote; cdk deploy uploads it.
const template = new Asset(stack, 'Template', { path: process.env.TEMPLATE ?? 'packaged.yaml' })
const neverlapse = new CfnStack(stack, 'Neverlapse', {
  templateUrl: template.httpUrl,
  parameters: { AlertEmail: 'ops@example.com', Domains: 'example.com' }
})
const output = (name) => neverlapse.getAtt(`Outputs.${name}`).toString()

const web = new Role(stack, 'Web', { assumedBy: new ServicePrincipal('ec2.amazonaws.com') })
web.addManagedPolicy(ManagedPolicy.fromManagedPolicyArn(stack, 'Readers', output('ReaderPolicyArn')))

// The command finds it by this name: neverlapse doctor --stack NAME.
new CfnOutput(stack, 'NeverlapseStack', { value: Fn.select(1, Fn.split('/', neverlapse.ref)) })
new CfnOutput(stack, 'NeverlapseBucket', { value: output('BucketName') })
