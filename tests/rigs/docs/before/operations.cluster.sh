# A claim that is bound, a PersistentVolume whose volume has gone with its node, and the order for one on a node that is gone, too.
kubectl apply -f - <<'END'
apiVersion: v1
kind: PersistentVolume
metadata: {name: pvc-7}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Retain
  storageClassName: fast
  csi: {driver: ullage.io, volumeHandle: pvc-7}
---
apiVersion: ullage.io/v1alpha1
kind: LogicalVolume
metadata: {name: pvc-3, finalizers: [ullage.io/logical-volume]}
spec: {nodeName: worker-9, deviceClass: fast, kind: volume, sizeBytes: 1073741824}
END
kubectl apply -f - <<'END'
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {storageClassName: fast-now, accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
END
kubectl wait pvc/data --for=jsonpath='{.status.phase}'=Bound --timeout=60s
