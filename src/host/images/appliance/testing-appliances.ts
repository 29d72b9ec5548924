/** Descriptors of appliances for tests, in the form that VirtualBox writes. */
export interface OvfOptions {
  files?: string;
  disks?: string;
  items?: string;
}

export const hardDisk = (id: string) => `
      <Item>
        <rasd:ElementName>disk</rasd:ElementName>
        <rasd:HostResource>/disk/${id}</rasd:HostResource>
        <rasd:InstanceID>7</rasd:InstanceID>
        <rasd:ResourceType>17</rasd:ResourceType>
      </Item>`;

export function ovfOf(options: OvfOptions = {}): string {
  return `<?xml version="1.0"?>
<Envelope ovf:version="1.0" xml:lang="en-US" xmlns="http://schemas.dmtf.org/ovf/envelope/1"
  xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1" xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData">
  <References>
    ${options.files ?? '<File ovf:id="file1" ovf:href="shop-disk001.vmdk"/>'}
  </References>
  <DiskSection>
    <Info>List of the virtual disks used in the package</Info>
    ${options.disks ?? '<Disk ovf:capacity="1048576" ovf:diskId="vmdisk1" ovf:fileRef="file1" ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/>'}
  </DiskSection>
  <VirtualSystem ovf:id="shop">
    <VirtualHardwareSection>
      <Item><rasd:ResourceType>3</rasd:ResourceType><rasd:VirtualQuantity>1</rasd:VirtualQuantity></Item>${options.items ?? hardDisk("vmdisk1")}
    </VirtualHardwareSection>
  </VirtualSystem>
</Envelope>
`;
}
